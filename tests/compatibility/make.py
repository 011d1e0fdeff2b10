"""Makes a compatibility set: files of every kind that the installed version of dmp writes, small enough to be kept.

python -m tests.compatibility.make FOLDER

``README.md`` beside this file says which version made which set. Run it in a copy of the tree of that version.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.backbones.pipelines import tiny_plain_unet, tiny_vae, write_scheduler
from tests.builders import tiny_dit, write_meta_checkpoint

DIGITS = ("--backbone", "digits")
LATENT = ("--backbone", "tiny.pt", "--num-classes", "4", "--num-heads", "2", "--vae", "vae")
RUN = ("--batch-size", "8", "--save-every", "4", "--log-every", "2", "--ema", "0.9", "--sample-every", "0")
DRAW = ("--batch-size", "4", "--sampler", "ddim", "--steps", "5", "--guidance", "1.5", "--grid", "1x2")
VARIANTS = {
    "attention": ("--gate", "attention"),
    "hard": ("--selection", "hard", "--top-k", "8"),
    "prepend": ("--position", "prepend", "--num-prompts", "3"),
    "conditioning": ("--gate-input", "conditioning", "--init", "random", "--gate-scale", "4"),
    "uniform": ("--scope", "uniform", "--depth", "1"),
    "prompt-tuning": ("--method", "prompt-tuning"),
}


def dmp(*arguments: str) -> None:
    """Type one command in the current folder."""
    subprocess.run([sys.executable, "-m", "dmp_cli", *arguments, "--device", "cpu", "-q"], check=True)


def write_inputs() -> None:
    """Twenty digits, eight colour pictures, a tiny latent DiT, its VAE and a tiny U-Net."""
    from dmp_cli.demo.digits import load_digits

    grey, labels = load_digits()
    for label in range(10):
        for index in np.flatnonzero(labels == label)[:2]:
            place = Path("images") / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey[index]).save(place / f"{index:04d}.png")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        place = Path("colours") / str(index % 4)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index:04d}.png")
    write_meta_checkpoint(Path("tiny.pt"), tiny_dit(in_channels=4, input_size=8))
    tiny_vae().save_pretrained("vae")
    tiny_plain_unet().save_pretrained("unet")
    write_scheduler(Path("unet"))


def train() -> None:
    """Runs that later code goes on with, what they come to in the end, and one patch of each variant."""
    latent = ("train", *LATENT, "--data", "colours", *RUN, "--latent-store", "--store-dir", "latents")
    dmp("train", *DIGITS, "--data", "images", *RUN, "--no-flip", "--steps", "8", "-o", "run")
    dmp(*latent, "--steps", "4", "-o", "latent-run")
    for method in ("lora", "full"):
        dmp("train", *DIGITS, "--data", "images", *RUN, "--method", method, "--steps", "4", "-o", f"run-{method}")
    for name, options in VARIANTS.items():
        dmp(
            "train", *DIGITS, "--data", "images", "--batch-size", "8", "--steps", "2", *options, "-o", f"variant-{name}"
        )
        Path("variants").mkdir(exist_ok=True)
        shutil.move(f"variant-{name}/patch.safetensors", f"variants/{name}.safetensors")
        shutil.rmtree(f"variant-{name}")
    dmp("patch", "--backbone", "unet", "--vae", "none", "--init", "random", "-o", "variants/unet.safetensors")
    dmp("patch", "--export", "run/patch.safetensors", "--sampler", "ddim", "--steps", "5", "-o", "table.safetensors")


def draw() -> None:
    """Folders of samples that later code adds to, and scores with the statistics behind them."""
    source = ("sample", "--patch", "run/patch.safetensors", *DRAW)
    dmp(*source, "-n", "8", "-o", "samples")
    dmp(*source, "-n", "8", "--tar", "-o", "samples-tar")
    dmp("sample", *LATENT, *DRAW, "-n", "4", "-o", "samples-bare")
    score = ("eval", "--reference", "images", "--features", "digits", "--bootstrap", "2", "--save-stats", "stats.npz")
    dmp(*score, "--samples", "samples", "-o", "scores")


def finish() -> None:
    """What the same version comes to when it goes on with all of that itself, under ``expected/``."""
    whole = Path("expected")
    whole.mkdir()
    for kept, more in (("run", ("--steps", "12")), ("latent-run", ("--steps", "8")), ("run-lora", ("--steps", "8"))):
        shutil.copytree(kept, whole / kept)
        dmp("train", "--resume", *more, "-o", str(whole / kept))
    for name, place in (("samples", "samples"), ("samples-tar", "samples-tar")):
        shutil.copytree(name, whole / place)
        tar = ("--tar",) if name.endswith("tar") else ()
        dmp("sample", "--patch", "run/patch.safetensors", *DRAW, *tar, "-n", "12", "-o", str(whole / place))
    for name in VARIANTS:
        patch = f"variants/{name}.safetensors"
        dmp("sample", "--patch", patch, *DRAW, "-n", "4", "-o", str(whole / "variants" / name))
    adapter = ("--adapter", "run-lora/adapter")
    dmp("sample", *DIGITS, *adapter, *DRAW, "-n", "4", "-o", str(whole / "variants" / "lora"))
    full = ("--backbone", "run-full/backbone.safetensors")
    dmp("sample", *full, *DRAW, "-n", "4", "-o", str(whole / "variants" / "full"))
    trim(whole)


def trim(whole: Path) -> None:
    """Keep of the results what a comparison needs: learnt files, images, sums."""
    for run in ("run", "latent-run", "run-lora"):
        shutil.rmtree(whole / run / "checkpoints")
    for grid in whole.rglob("grid.png"):
        grid.unlink()
    for lock in [*whole.rglob(".lock"), *Path(".").rglob(".locks")]:
        lock.unlink() if lock.is_file() else shutil.rmtree(lock)
    for checkpoint in Path(".").glob("run*/checkpoints/step-00000004"):
        if (checkpoint.parent / "step-00000008").exists():
            shutil.rmtree(checkpoint)
    shutil.rmtree("run-full/checkpoints")
    Path("scores/report.html").unlink()
    shutil.rmtree("unet")  # made again, bit for bit, by the test's own builder


def arithmetic() -> str:
    """A digest of what this machine computes: where it is equal, so must all bytes be."""
    from dmp_cli import load_backbone

    torch.set_num_threads(1)
    source = torch.Generator().manual_seed(0)
    x = torch.randn(8, 1, 8, 8, generator=source)
    backbone = load_backbone("digits")
    backbone.requires_grad_(True)
    out = backbone(x, torch.arange(0, 800, 100), torch.arange(8))
    out.square().mean().backward()
    parts = [x, out, *(p.grad for p in backbone.parameters() if p.grad is not None)]
    digest = hashlib.sha256(b"".join(part.detach().numpy().tobytes() for part in parts))
    return digest.hexdigest()


def made_with() -> dict[str, Any]:
    """Versions behind the set, and the arithmetic of the machine."""
    import diffusers
    import PIL

    import dmp_cli

    versions = {"dmp": dmp_cli.__version__, "torch": torch.__version__, "diffusers": diffusers.__version__}
    return {"versions": {**versions, "pillow": PIL.__version__}, "arithmetic": arithmetic()}


def main(folder: Path) -> None:
    """Make the whole set in ``folder``, which must not exist."""
    about = made_with()
    folder.mkdir(parents=True)
    os.chdir(folder)
    write_inputs()
    train()
    draw()
    finish()
    Path("made.json").write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
