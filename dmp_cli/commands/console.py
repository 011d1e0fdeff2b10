"""What a command prints: progress and remarks on stderr, the result on stdout, as text or as one JSON object."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from ..config import CommonOptions
from ..errors import one_line, visible
from ..runtime import LastingStream, watched

_PLAIN_INTERVAL = 30.0  # seconds between two plain progress lines where there is no terminal


class Printer:
    """The two streams of one command. Each text is one line, in which control characters are shown, not written."""

    def __init__(self, common: CommonOptions) -> None:
        self.as_json, self.quiet, self.verbose = common.json_, common.quiet, common.verbose
        self.muted = False  # True: another process warns of the same
        self._stdout, stderr = LastingStream(sys.stdout, drops=False), LastingStream(sys.stderr, drops=True)
        self._notes = _console(stderr)
        self._shown: Any = None  # the bars that are on the terminal now
        self._results = _console(stderr if self.as_json else self._stdout)

    def note(self, text: str) -> None:
        """A remark for whoever watches."""
        if not self.quiet:
            self._notes.print(one_line(text))

    def warn(self, text: str) -> None:
        """A remark that is shown even with --quiet."""
        if not self.muted:
            self._notes.print(f"warning: {one_line(text)}")

    def say(self, text: str) -> None:
        """A line of the result."""
        if not self.quiet:
            self._results.print(one_line(text))

    def table(self, title: str, columns: list[str], rows: list[list[str]], *, left: int = 1) -> None:
        """A table of the result; all columns but the first ``left`` ones hold numbers and align right."""
        table = Table(title=one_line(title), title_justify="left")
        for place, column in enumerate(columns):
            table.add_column(one_line(column), justify="left" if place < left else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(one_line, row))
        if not self.quiet:
            self._results.print(table, soft_wrap=False)

    def result(self, content: dict[str, Any]) -> None:
        """The JSON object of --json; nothing otherwise."""
        if self.as_json:
            print(visible(json.dumps(content)), file=self._stdout, flush=True)

    def plan(self, content: dict[str, Any]) -> None:
        """What --dry-run shows."""
        if self.as_json:
            self.result(content)
        else:
            self._results.print(visible(json.dumps(content, indent=2, ensure_ascii=False)))

    @contextlib.contextmanager
    def progress(self, title: str, total: int, *, done: int = 0) -> Iterator[Callable[[int, str], None]]:
        """Yields ``advance(done, remark)``: a bar on a terminal, a plain line every 30 seconds elsewhere.

        Inside another one it is a second bar below. ``total`` 0: nobody knows it, and what is done is counted.
        """
        if self.quiet:
            yield lambda done, remark: None
        elif self._notes.is_terminal:
            is_inner = self._shown is not None
            with self._bars() as bars:
                task = bars.add_task(one_line(title), total=total or None, completed=done, remark="")
                try:
                    yield lambda done, remark: bars.update(task, completed=done, remark=one_line(remark))
                finally:
                    if is_inner:  # the outermost ends with a last look at what it came to
                        bars.remove_task(task)
        else:
            yield self._plain(title, total)

    @contextlib.contextmanager
    def live(self, draw: Callable[[], Table]) -> Iterator[bool]:
        """Context in which a table is on the terminal, drawn anew twice a second. It yields whether there is one."""
        if self.quiet or not self._notes.is_terminal:
            yield False
            return
        from rich.live import Live

        with Live(get_renderable=draw, console=self._notes, refresh_per_second=2, transient=True):
            yield True

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Context in which the engine's computations in this thread are shown, each by a bar of its own."""
        with watched.given(self.progress):
            yield

    @contextlib.contextmanager
    def _bars(self) -> Iterator[Any]:
        """The bars that are shown, all at once: begun by the outermost."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._shown is not None:
            yield self._shown
            return
        title, remark = (TextColumn(f"{{task.{told}}}", markup=False) for told in ("description", "fields[remark]"))
        columns = (title, BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
        with Progress(*columns, remark, console=self._notes, transient=True) as self._shown:
            try:
                yield self._shown
            finally:
                self._shown = None

    def _plain(self, title: str, total: int) -> Callable[[int, str], None]:
        last = time.monotonic()

        def advance(done: int, remark: str) -> None:
            nonlocal last
            if done == total or time.monotonic() - last >= _PLAIN_INTERVAL:
                last = time.monotonic()
                self.note(f"{title} {f'{done}/{total}' if total else f'{done:,}'} {remark}".rstrip())

        return advance


def _console(stream: LastingStream) -> Console:
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)  # type: ignore[arg-type]
