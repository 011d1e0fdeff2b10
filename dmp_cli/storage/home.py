"""The user's folders for what several runs use: weights, latents, networks of scores. Nothing is made here."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DMPError


def home_folder() -> Path:
    """The folder for files that several runs use: ``$DMP_HOME``, or by default a folder in the user's data folder.

    Raises:
        DMPError: the user has no home folder, as some containers and services run.
    """
    if named := os.environ.get("DMP_HOME"):
        return Path(named)
    import platformdirs

    try:
        path = Path(platformdirs.user_data_dir("dmp", appauthor=False))
    except RuntimeError:
        path = Path("~")
    if not path.is_absolute():  # earlier versions of platformdirs leave the ~ in it
        raise DMPError(
            "this user has no home folder, and DMP_HOME is not set",
            hint="Set DMP_HOME to a folder for weights and latents, or name the one for latents with --store-dir.",
        )
    return path


def cache_folder() -> Path | None:
    """The user's folder for files that can be fetched again; None: the user has no home folder."""
    import platformdirs

    try:
        path = Path(platformdirs.user_cache_dir("dmp"))
    except RuntimeError:
        return None
    return path if path.is_absolute() else None


def can_write(folder: Path) -> bool:
    """Whether files can be written into ``folder``, or it can be made, as far as one can tell without doing it."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
