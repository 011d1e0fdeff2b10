"""docs/scale.md: its formulas say what the code does on small things, and its numbers follow from its inputs."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dmp_cli.backbones.empty import build_backbone
from dmp_cli.config import PatchConfig, TrainConfig
from dmp_cli.data.batches import Batch
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.latents.fill import describe_store
from dmp_cli.latents.sources import sources_file, write_sources
from dmp_cli.latents.store import LatentStore
from dmp_cli.patching import balance
from dmp_cli.runtime import LiveMemory
from dmp_cli.storage.headers import read_header
from dmp_cli.training.checkpoint import save_state
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.methods import prepare
from dmp_cli.training.noise import Draws
from tests.builders import tiny_dit
from tests.runtime.test_many_processes import NUMBERS

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    import scale

    return scale


@pytest.fixture
def given(scale: ModuleType) -> dict[str, Any]:
    return scale.inputs({name: value for name, (value, _) in scale.ASSUMED.items()})


def cluster(scale: ModuleType, given: dict[str, Any], gpus: int, **others: float) -> Any:
    made = scale.Cluster(gpus, given)
    made.of |= others
    return made


def tensor_bytes(*paths: Path) -> int:
    """Of the files' tensors, without their headers."""
    offsets = [entry.data_offsets for path in paths for entry in read_header(path).tensors.values()]
    return sum(end - start for start, end in offsets)


def vae_store(count: int, side: int) -> Any:
    """The record of a store of so many images of a VAE's latents."""
    codec = SimpleNamespace(
        record=SimpleNamespace(kind="vae", digest="d"), has_posterior=True, factor=8, image_channels=3
    )
    images = type("Images", (), {"path": Path("data"), "fingerprint": "f", "__len__": lambda self: count})()
    return describe_store(images, codec, SimpleNamespace(sample_shape=(4, side, side)), flip=True, size=8 * side)


def test_the_store_is_as_large_as_computed(scale: ModuleType, given: dict[str, Any], tmp_path: Path) -> None:
    large = vae_store(10_000_000, 32)
    of = scale.Cluster(1, given).of
    assert (large.shape[0], large.row_bytes, large.rows) == (of["F"], of["F"] * of["R"], of["k"])
    assert scale.Cluster(1, given).files() == large.num_files
    record = vae_store(5, 2)
    store = LatentStore(tmp_path, record)
    store.write(0, np.zeros((5, *record.shape), np.float32), {})
    write_sources(store, 0, np.zeros((5, 3), np.int64))
    small = cluster(scale, given, 1, N=5, R=record.row_bytes / 2)
    assert tensor_bytes(store.file(0), sources_file(store, 0)) == small.stored()


def test_a_patch_of_dit_l2_has_as_many_parameters(scale: ModuleType, given: dict[str, Any]) -> None:
    shapes = [block.hidden_shape for block in build_backbone("dit-l2").list_blocks()]
    assert len(set(shapes)) == 1
    prompts, width = shapes[0]
    of = scale.Cluster(1, given).of
    assert len(shapes) * prompts == of["L, K"]
    assert len(shapes) * prompts * width + prompts * (width + 2) == of["P"]  # the gate reads the depth, and has a bias
    assert width * prompts == of["h"]
    assert given["L, K"].shown == f"{len(shapes)}, {prompts}"


@pytest.fixture(scope="module")
def loop() -> TrainingLoop:
    """Of a tiny network with as many tokens as DiT-L/2, so that the gate's weights outweigh all else."""
    config = TrainConfig(data=Path("unused"), batch_size=256, ema=0.9)
    backbone = tiny_dit(input_size=32, depth=6)
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3), patch_config=PatchConfig())
    return TrainingLoop(trainee, config)


@pytest.mark.parametrize("pieces", [1, 4])
def test_the_balance_losses_hold_as_many_copies_of_the_gates_weights(
    scale: ModuleType, given: dict[str, Any], loop: TrainingLoop, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    count = loop.config.batch_size
    assert given["q"].value == balance.AT_ONCE
    at_once = 6 * 256 * count // pieces
    monkeypatch.setattr(balance, "AT_ONCE", at_once)
    draws = Draws(torch.randint(1000, (count,)), torch.empty(0), None, None, None)
    with LiveMemory() as memory:
        loss, _ = loop.objective.balance(draws, torch.zeros(count, dtype=torch.long))
        assert loss is not None
        loss.backward()
    expected = cluster(scale, given, 2, **{"b": count / 2, "L, K": 6 * 256, "q": at_once}).balance()
    sums = 2 * pieces * 4 * 6 * 256  # of both losses, one for each piece
    assert memory.peak == pytest.approx(expected + (sums if pieces > 1 else 0), rel=0.05)


def test_a_checkpoint_is_as_large_as_computed(scale: ModuleType, given: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig(data=Path("unused"), batch_size=4, ema=0.9)
    trainee = prepare(config, backbone=tiny_dit(), codec=PixelCodec(3), patch_config=PatchConfig())
    small, own = TrainingLoop(trainee, config), torch.arange(4)
    batch = Batch(step=0, values=torch.rand(4, 3, 8, 8), labels=own, indices=own, bad=[])
    small.advance(small.prepare(batch))
    path = save_state(tmp_path, small.state(), keep=1)
    expected = cluster(scale, given, 1, P=trainee.num_learnt, h=16 * 16).checkpoint()
    counts = 4 * (len(trainee.learnt) + len(small.helpers()))  # AdamW's count of steps, beside each tensor
    assert tensor_bytes(*path.glob("*.safetensors")) == expected + counts


def test_a_ring_round_by_round(scale: ModuleType, given: dict[str, Any]) -> None:
    for gpus, speed in ((8, 200e9), (64, 25e9)):
        of = scale.Cluster(gpus, given)
        assert of.of["x"] == NUMBERS
        chunk, seconds = 4 * (6_554_112 + NUMBERS) / gpus, 0.0
        for _ in range(gpus - 1):  # each adds up a part
            seconds += chunk / speed + 10e-6
        for _ in range(gpus - 1):  # each passes on a part that is whole
            seconds += chunk / speed + 10e-6
        assert of.reduction() == pytest.approx(seconds)


def test_the_page_by_hand() -> None:
    rows = dict(re.findall(r"^\| ([^|]+?) \| [^|]+ \| (.+) \|$", (DOCS / "scale.md").read_text(), re.MULTILINE))
    # 0.1971 s, and 26.2 MB in a ring of 8 at 200 GB/s with 14 messages of 10 µs: 0.23 ms and 0.14 ms
    assert rows["images a second"].split(" | ")[:2] == ["649", "5,186"]  # 128 / 0.1971 and 1,024 / 0.19747
    assert rows["an epoch"].split(" | ")[:2] == ["4.3 h", "32 min"]  # 78,125 x 0.1971 s and 9,766 x 0.19747 s
    # a step that encodes takes 0.1971 / 0.4288 = 0.45965 s, so 128 images 0.26255 s, and one 2.0512 ms
    assert rows["filling it, encoding alone"].split(" | ")[::3] == ["11.4 h", "42 s"]  # 9,766 and 10 files of 2,048
    assert rows["latent store, once"].split(" | ")[0] == "655.8 GB"  # 10 million times 2 x 32,776 + 24 bytes


def test_assumptions_of_ones_own_are_shown_and_not_written(
    scale: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (DOCS / "scale.md").read_bytes()
    monkeypatch.setattr("sys.argv", ["scale.py", "--show", "--between", "50", "--gpus", "16,2048"])
    assert scale.main() == 0
    shown = capsys.readouterr().out
    assert "| 16 GPUs | 2,048 GPUs |" in shown
    assert "one of another machine | 50 |" in shown
    assert re.search(r"random numbers of a step, .* \| at most [\d.]+ ms \| not measured \|", shown)
    monkeypatch.setattr("sys.argv", ["scale.py", "--between", "50"])
    with pytest.raises(SystemExit):
        scale.main()
    assert "--show" in capsys.readouterr().err
    assert (DOCS / "scale.md").read_bytes() == before
