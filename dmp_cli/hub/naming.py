"""Names of repositories on the hub, such as ``user/name@revision``, and of the files of its local cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ..storage import PICKLES, SAFETENSORS

_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
# Where the cache keeps the files of one commit, and what may stand behind the path of one: a strength.
_CACHED = re.compile(
    r".*[/\\]models--(?P<user>[\w.-]+?)--(?P<name>[\w.-]+)[/\\]snapshots[/\\](?P<commit>[0-9a-f]{40})[/\\]"
    r"[^/\\:]+(?P<strength>:[^/\\]*)?",
    re.ASCII | re.DOTALL,
)


class HubName(NamedTuple):
    """A repository, and the revision that was asked for; None: none was."""

    repo: str
    revision: str | None

    @property
    def is_pinned(self) -> bool:
        """Whether it names one commit, which never changes."""
        return self.revision is not None and re.fullmatch("[0-9a-f]{40}", self.revision) is not None


def read_name(text: str) -> HubName | None:
    """What ``text`` names on the hub; None: it is a path, because it is there or because only a path looks so."""
    found = _NAME.fullmatch(text)
    if found is None or Path(text).exists():
        return None
    is_file = found["revision"] is None and Path(text).suffix.lower() in (*SAFETENSORS, *PICKLES)
    return None if is_file else HubName(found["repo"], found["revision"])


def pinned_name(path: str | Path) -> str | None:
    """``user/name@commit`` for a file of the hub's cache, with its strength where one stands behind it; else None."""
    found = _CACHED.fullmatch(str(path))
    return found and f"{found['user']}/{found['name']}@{found['commit']}{found['strength'] or ''}"


def short_name(path: Path) -> str:
    """What a folder made of the file at ``path`` is called: the name of its repository, or of the file."""
    found = _CACHED.fullmatch(str(path))
    return path.stem if found is None else found["name"]
