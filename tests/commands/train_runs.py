"""What tests of ``dmp train`` share: the files of a run, and a run with everything that a resumed one carries on."""

from __future__ import annotations

from pathlib import Path

CHECKPOINT_FILES = {f"{name}.safetensors" for name in ("ema", "helpers", "learnt", "optimizer")} | {"manifest.json"}


def expected_files(*steps: int, learnt: set[str]) -> set[str]:
    states = {f"checkpoints/step-{step:08d}/{name}" for step in steps for name in CHECKPOINT_FILES}
    return states | {"config.json", "log.jsonl", "run.toml"} | learnt


def recipe(images: Path, *, steps: int, out: str) -> list[str]:
    """Ten steps pass two epochs of eight images; everything a run can carry on is on."""
    more = ["--batch-size", "4", "--ema", "0.9", "--warmup", "4", "--workers", "0", "--log-every", "2", "-q"]
    return ["--data", str(images), "--steps", str(steps), "--save-every", "3", *more, "-o", out]
