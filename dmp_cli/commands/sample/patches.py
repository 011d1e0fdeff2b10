"""The patches that ``dmp sample --patch`` names: one, or several that add up, each with its strength."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import ConfigError


class PatchShare(NamedTuple):
    """A patch file, and the factor on what it adds."""

    path: Path
    strength: float


def read_patches(named: Sequence[Path], *, strength: float | None) -> tuple[PatchShare, ...]:
    """The patches in the order in which they were named, as ``style.safetensors`` or ``style.safetensors:0.5``.

    Args:
        strength: that of --strength; None: it was not given.

    Raises:
        ConfigError: a strength that is no number, two strengths for one patch, or a patch that is named twice.
    """
    shares = [_split(path) for path in named]
    if strength is not None and (len(shares) > 1 or any(own is not None for _, own in shares)):
        raise ConfigError(
            "--strength is for one patch without a strength of its own", hint="Write --patch A:0.5 --patch B:1 instead."
        )
    paths = [path.resolve() for path, _ in shares]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise ConfigError(f"--patch {twice[0]} is given twice", hint="Give it once, with the sum of the strengths.")
    plain = 1.0 if strength is None else strength
    return tuple(PatchShare(path, plain if own is None else own) for path, own in shares)


def _split(named: Path) -> tuple[Path, float | None]:
    """The file, and the strength behind its last colon; a file that is there under the whole name has none."""
    path, colon, text = str(named).rpartition(":")
    if not colon or named.exists():
        return named, None
    try:
        return Path(path), float(text)
    except ValueError:
        if Path(path).exists():
            raise ConfigError(f"--patch {named}: {text} is no strength, such as 0.5") from None
        return named, None
