"""A folder that commands fill one after the other: what was asked for, on which inputs, and which commands are done.

Two records lie in it: what it is about, and the keys of the commands that are done. Run again, the same commands go on
where they stopped.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import describe_changes
from ..errors import ConfigError
from ..jobs import Job, jobs_of
from ..storage import clear_owned, is_untouched, read_json, refuse_existing, remove_partials, write_json

_DONE = "done.json"


def settle_threads(record: Path, *, asked: int | None, usual: int) -> int | None:
    """The threads of a folder's commands: as ``record`` says, which is kept; of a new folder, as asked or ``usual``.

    None: the folder was begun by an earlier version, which kept none and took those of each call.
    """
    if asked is not None:
        return asked  # another number than the record's is refused with the other settings
    if not record.exists():
        return usual
    with contextlib.suppress(ConfigError):  # what is wrong with the record is said where the folder is taken
        known = read_json(record, paths=True)
        found = known.get("threads") if isinstance(known, dict) else None
        return found if isinstance(found, int) else None
    return None


def scores_of(command: Sequence[str]) -> Path | None:
    """The folder that a command writes scores into; None: it is not ``dmp eval``."""
    return Path(command[command.index("-o") + 1]) if command[0] == "eval" else None


def is_whole(command: Sequence[str]) -> bool:
    """Whether what a command that is done has written is still there, as far as later commands read it."""
    scores = scores_of(command)
    return scores is None or (scores / "report.json").exists()


class CommandFolder:
    """The records of a folder that one command owns, beside what its inner commands write."""

    def __init__(self, path: Path, *, about: Mapping[str, Any], noun: str, free: Collection[str] = ()) -> None:
        """``noun`` is what the folder holds, such as ``ablation``. The entries ``free`` of ``about`` may change.

        ``about`` says what was asked for and identifies the inputs, by fingerprints rather than paths, so that the
        folder and the inputs may be moved and renamed.
        """
        self.path, self._noun, self._free = Path(path), noun, frozenset(free)
        self._about = json.loads(json.dumps(dict(about), default=str))
        self.about_file, self._done_file = self.path / f"{noun}.json", self.path / _DONE

    @property
    def begun(self) -> bool:
        """Whether the folder holds such records already."""
        return self.about_file.exists()

    def claim(self, *, force: bool, inputs: Iterable[Path] = ()) -> None:
        """Take the folder: what was begun with the same settings is continued.

        Args:
            force: remove what is there, if it is of this kind.
            inputs: files and folders of the user, which ``force`` must not remove.

        Raises:
            ConfigError: the folder holds anything else, or ``force`` would remove an input.
        """
        if force and self.begun:  # a folder of another kind is never removed
            self._check_inputs(inputs)
            clear_owned(self.path.resolve())
        self.check(force=False)
        write_json(self.about_file, self._about)
        remove_partials(self.path)

    def check(self, *, force: bool, inputs: Iterable[Path] = ()) -> None:
        """Raise as :meth:`claim` would, and write nothing."""
        if force and self.begun:
            self._check_inputs(inputs)
            return
        earlier = self._read(self.about_file, dict)
        if earlier is None:
            refuse_existing(self.path, force=False)
        elif not is_untouched(self.path, but=self.about_file.name):  # the first command may have refused an option
            self._check_same(earlier)

    def done(self) -> list[str]:
        """The keys of the commands that are done, in the order in which they were."""
        return self._read(self._done_file, list) or []

    def mark(self, key: str) -> None:
        """Record that a command is done."""
        known = self.done()
        if key not in known:
            write_json(self._done_file, [*known, key])

    def jobs(
        self,
        commands: Sequence[list[str]],
        keys: Sequence[str],
        *,
        typed: Callable[[int], list[str]] | None = None,
        also_reads: Mapping[Path, Path] | None = None,
    ) -> list[Job]:
        """The commands as jobs, which are marked as they are done; see :func:`dmp_cli.jobs.jobs_of`."""
        known = self.done()

        def begin(number: int) -> None:
            if (scores := scores_of(shlex.split(keys[number]))) is not None:
                self.unmark_scores(scores, but=keys[number])

        return jobs_of(
            commands,
            folder=self.path,
            typed=typed or (lambda number: commands[number]),
            keys=keys,
            is_done=lambda number: keys[number] in known and is_whole(commands[number]),
            begin=begin,
            finish=lambda number: self.mark(keys[number]),
            also_reads=also_reads,
        )

    def unmark_scores(self, place: Path, *, but: str) -> None:
        """Record that scores in ``place``, relative to the folder, are to be written by the command ``but`` alone.

        What another command has written there is overwritten from now on.
        """
        known = self.done()
        kept = [key for key in known if key == but or scores_of(shlex.split(key)) != place]
        if kept != known:
            write_json(self._done_file, kept)

    def _check_inputs(self, inputs: Iterable[Path]) -> None:
        own = self.path.resolve()
        for given in inputs:
            if own in (given.resolve(), *given.resolve().parents):
                raise ConfigError(
                    f"--force would remove {given}, which lies in {self.path}", hint="Move it to another folder."
                )

    def _check_same(self, earlier: Mapping[str, Any]) -> None:
        fixed = [{k: v for k, v in one.items() if k not in self._free} for one in (earlier, self._about)]
        changed = describe_changes(*fixed)
        if changed:
            article = "an" if self._noun[0] in "aeiou" else "a"
            raise ConfigError(
                f"{self.path} holds {article} {self._noun} with other settings: {changed}",
                hint="Give another folder with -o, or replace this one with --force.",
            )

    def _read(self, path: Path, kind: type[dict[str, Any]] | type[list[str]]) -> Any:
        hint = "Give another folder with -o."
        try:
            content = read_json(path, paths=True) if path.exists() else None
        except ConfigError as error:
            raise ConfigError(error.message, hint=hint) from error
        known = content is None or (isinstance(content, kind) and all(isinstance(name, str) for name in content))
        if not known:
            raise ConfigError(f"{path} was not written by dmp", hint=hint)
        return content
