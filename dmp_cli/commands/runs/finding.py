"""What ``dmp`` has written below a folder: runs, patches, samples and scores, each told from its own files alone.

A file that is damaged, or that somebody else has written, is passed over or told as far as it can be read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import DMPError
from ...storage import holder_of, read_object, whole_json_lines

_DEEPEST = 8  # folders below the first one
_LARGEST_LOG = 1 << 28  # bytes of a log that is read
_PASSED = {"checkpoints", "node_modules", "__pycache__"}


@dataclass(frozen=True)
class Found:
    """One thing that was found. None: it is not known, or there is no such thing of it."""

    kind: str  # run, patch, samples, scores
    path: str
    changed: float  # seconds since 1970
    about: str  # in a few words
    steps: int | None = None
    of_steps: int | None = None
    held_out: float | None = None  # the newest held-out loss
    score: str | None = None
    state: str = ""  # running, stopped or done; empty where nothing runs or stops

    def to_json(self) -> dict[str, Any]:
        """Its fields, ready for JSON."""
        return asdict(self)


def find_all(folder: Path) -> Iterator[Found]:
    """All that is at ``folder`` and below, folders in the order of their names. Links are not followed."""
    for path, folders, files in os.walk(folder, onerror=lambda error: None):
        here = Path(path)
        depth = len(here.relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _PASSED)
        folders[:] = folders if depth < _DEEPEST else []
        found = _find_here(here, {*files})
        if found is not None:
            folders[:] = [] if found.kind in ("samples", "run") else folders
            yield found
            continue
        for name in sorted(files):
            if name.endswith(".safetensors") and (patch := _read_patch(here / name)) is not None:
                yield patch


def _find_here(folder: Path, files: set[str]) -> Found | None:
    """What the folder as a whole is; None: nothing of ours."""
    with contextlib.suppress(DMPError, OSError, KeyError, TypeError, ValueError, AttributeError):
        if "config.json" in files and ("log.jsonl" in files or (folder / "checkpoints").is_dir()):
            return _read_run(folder)
        if "samples.json" in files:
            return _read_samples(folder)
        if "report.json" in files:
            return _read_scores(folder)
    return None


def _read_run(folder: Path) -> Found | None:
    settings = read_object(folder / "config.json", kind=DMPError)
    train, backbone = settings.get("train"), settings.get("backbone")
    if not isinstance(train, dict) or not isinstance(backbone, dict):
        return None
    log = folder / "log.jsonl"
    done, loss = 0, None
    if log.exists() and log.stat().st_size <= _LARGEST_LOG:
        for _, _, line in whole_json_lines(log, drop=lambda number: None):
            done = line["step"] if type(line.get("step")) is int else done
            held = line.get("held_out")
            loss = held["loss"] if isinstance(held, dict) and type(held.get("loss")) is float else loss
    wanted = train.get("steps")
    holder = holder_of(folder)
    if holder is not None:
        state = f"running: {holder}"
    elif type(wanted) is int and done >= wanted:
        state = "done"
    else:
        state = "stopped"
    name = backbone.get("name") or backbone.get("family") or "backbone"
    data = Path(str(train.get("data"))).name
    return Found(
        kind="run",
        path=str(folder),
        changed=(log if log.exists() else folder / "config.json").stat().st_mtime,
        about=f"{train.get('method')} of {name} on {data}",
        steps=done,
        of_steps=wanted if type(wanted) is int else None,
        held_out=loss,
        state=state,
    )


def _read_samples(folder: Path) -> Found | None:
    file = folder / "samples.json"
    told = read_object(file, kind=DMPError)
    made = told.get("made")
    if not isinstance(made, dict):
        return None
    sample = made.get("sample") if isinstance(made.get("sample"), dict) else {}
    assert isinstance(sample, dict)
    count = told.get("num_images", sample.get("num_images"))
    holder = holder_of(folder)
    return Found(
        kind="samples",
        path=str(folder),
        changed=file.stat().st_mtime,
        about=f"{count:,} images, {sample.get('sampler')}, {sample.get('steps')} steps" if count else "images",
        state="" if holder is None else f"running: {holder}",
    )


def _read_scores(folder: Path) -> Found | None:
    file = folder / "report.json"
    told = read_object(file, kind=DMPError)
    rows, features = told.get("rows"), told.get("features")
    if not isinstance(rows, list) or not rows:
        return None
    last = rows[-1]
    name, score = next(iter(last["scores"].items()))
    value = f"{name} ({features}) {score['value']:.4g}"
    if score.get("interval") is not None:
        low, high = score["interval"]
        value += f", {score['difference']:+.3g} ({low:+.3g} to {high:+.3g})"
    return Found(
        kind="scores",
        path=str(folder),
        changed=file.stat().st_mtime,
        about=f"{len(rows)} folders, {last['count']:,} images" if len(rows) > 1 else f"{last['count']:,} images",
        score=value,
    )


def _read_patch(path: Path) -> Found | None:
    from ...patching import read_record

    try:
        record = read_record(path)
        changed = path.stat().st_mtime
    except (DMPError, OSError):
        return None
    training: dict[str, Any] = record.training or {}
    steps = training.get("steps_done")
    return Found(
        kind="patch",
        path=str(path),
        changed=changed,
        about=f"of {record.backbone.name or record.backbone.family}",
        steps=steps if type(steps) is int else 0,
    )
