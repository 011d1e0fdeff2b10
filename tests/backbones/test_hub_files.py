"""Downloads from a hub on this machine: the fewest files, pickles last, and everything found again without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dmp_cli.backbones.hub_files import needed_files
from tests.backbones.pipelines import tiny_pixart, tiny_plain_unet, tiny_unet, write_pipeline, write_scheduler
from tests.builders import diffusers_dit
from tests.zoo import diffusers_folders as zoo
from tests.zoo.hub import hub_of
from tests.zoo.schedulers import DDPM_LIKE

STEM = zoo.STEM
STABLE_DIFFUSION = [  # as listed for stable-diffusion-v1-5/stable-diffusion-v1-5
    *(".gitattributes", "README.md", "model_index.json", "v1-5-pruned.safetensors", "v1-5-pruned-emaonly.ckpt"),
    *("feature_extractor/preprocessor_config.json", "safety_checker/config.json", "safety_checker/model.safetensors"),
    *("safety_checker/pytorch_model.bin", "scheduler/scheduler_config.json", "tokenizer/merges.txt"),
    *("tokenizer/vocab.json", "tokenizer/tokenizer_config.json", "text_encoder/config.json"),
    *(f"text_encoder/{name}" for name in ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")),
    *("unet/config.json", "vae/config.json"),
    *(
        f"{part}/{STEM}{suffix}"
        for part in ("unet", "vae")
        for suffix in (".safetensors", ".fp16.safetensors", ".non_ema.safetensors", ".bin", ".fp16.bin")
    ),
]


def test_the_fewest_files_of_a_large_repository() -> None:
    assert sorted(needed_files(STABLE_DIFFUSION)) == sorted([
        *("model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "unet/config.json"),
        *("tokenizer/merges.txt", "tokenizer/vocab.json", "tokenizer/tokenizer_config.json", "vae/config.json"),
        *("text_encoder/model.safetensors", f"unet/{STEM}.safetensors", f"vae/{STEM}.safetensors"),
    ])  # fmt: skip


def test_shards_of_one_variant_and_pickles_only_alone() -> None:
    shards = [f"transformer/{STEM}{middle}-0000{n}-of-00002.safetensors" for middle in ("", ".fp16") for n in (1, 2)]
    index = [f"transformer/{STEM}.safetensors.index{middle}.json" for middle in ("", ".fp16")]
    texts = [f"text_encoder/pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    texts.append("text_encoder/pytorch_model.bin.index.json")
    assert needed_files([*shards, *index, *texts]) == [
        *sorted(texts, key=lambda name: "-of-" in name),
        index[0],
        *shards[:2],
    ]
    assert needed_files([*shards[2:], index[1]]) == [index[1], *shards[2:]]
    assert needed_files([f"{STEM}.bin", "config.json", "model.onnx"]) == ["config.json", f"{STEM}.bin"]


_PROGRAM = """
import json, sys
from dmp_cli.backbones import load_backbone
from dmp_cli.errors import CheckpointError
from dmp_cli.latents import load_codec

told = {}
for name, options in json.loads(sys.argv[1]).items():
    try:
        loaded = load_backbone(name, **options)
        codec = load_codec(None, loaded)
        told[name] = [loaded.record.digest, codec.record.digest]
    except CheckpointError as error:
        told[name] = error.message
print(json.dumps(told))
"""


def load_elsewhere(names: dict[str, dict[str, object]], *, home: Path, address: str | None) -> dict[str, object]:
    """What a process of its own loads; without an ``address`` it is offline."""
    hub = {"HF_HUB_OFFLINE": "1"} if address is None else {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address}
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **hub}
    command = [sys.executable, "-c", _PROGRAM, json.dumps(names)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def as_pickle(folder: Path) -> None:
    """The weights of ``folder`` in a pickle alone, as in facebook/DiT-XL-2-256."""
    whole = folder / f"{STEM}.safetensors"
    torch.save(zoo.load_file(whole), folder / f"{STEM}.bin")
    whole.unlink()


@pytest.mark.slow
def test_repositories_of_every_layout(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    write_pipeline(root / "a" / "sd", tiny_unet())
    for part in ("unet", "vae"):
        (root / "a" / "sd" / part / f"{STEM}.bin").write_bytes(b"never fetched")
    (root / "a" / "sd" / "sd.safetensors").write_bytes(b"never fetched")
    write_pipeline(root / "a" / "half", tiny_pixart(), text=None)
    zoo.shard(root / "a" / "half" / "transformer", variant="fp16")
    zoo.as_variant(root / "a" / "half" / "vae", "fp16")
    diffusers_dit(in_channels=4, out_channels=8).save_pretrained(root / "a" / "dit" / "transformer")
    zoo.change_config(root / "a" / "dit" / "transformer", **zoo.DIT_LEGACY)
    write_pipeline(root / "a" / "dit-parts", tiny_unet(), text=None)
    (root / "a" / "dit-parts" / "vae").rename(root / "a" / "dit" / "vae")
    as_pickle(root / "a" / "dit" / "transformer"), as_pickle(root / "a" / "dit" / "vae")
    write_scheduler(root / "a" / "dit" / "scheduler", **DDPM_LIKE["facebook/DiT-XL-2-256"])
    (root / "a" / "dit" / "model_index.json").write_text("{}")
    tiny_plain_unet().save_pretrained(root / "a" / "incomplete")
    (root / "a" / "incomplete" / f"{STEM}.safetensors").unlink()
    loads: dict[str, dict[str, object]] = {
        "a/sd": {}, "a/half": {}, "a/dit": {"trained_with": "meta"}, "a/incomplete": {}, "a/nothing": {},
    }  # fmt: skip
    fetching = {name: {**options, "download": True} for name, options in loads.items()}
    with hub_of(root) as (address, fetched):
        online = load_elsewhere(fetching, home=tmp_path / "home", address=address)
    heavy = sorted(name for name in fetched if not name.endswith((".json", ".txt")))
    assert heavy == sorted([
        *(f"a/sd/{part}/{STEM}.safetensors" for part in ("unet", "vae")), "a/sd/text_encoder/model.safetensors",
        *(f"a/half/transformer/{STEM}.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)),
        f"a/half/vae/{STEM}.fp16.safetensors", f"a/dit/transformer/{STEM}.bin", f"a/dit/vae/{STEM}.bin",
    ])  # fmt: skip
    assert len(fetched) == len(set(fetched))
    assert "is not a diffusers model folder" in str(online["a/incomplete"])
    assert str(online["a/nothing"]).startswith("a/nothing: ")
    offline = load_elsewhere(loads, home=tmp_path / "home", address=None)
    assert [offline[name] for name in ("a/sd", "a/half", "a/dit")] == [
        online[name] for name in ("a/sd", "a/half", "a/dit")
    ]
    assert "neither a path here nor in the local hub cache" in str(offline["a/nothing"])
