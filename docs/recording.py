"""The README's picture of a terminal: real commands, run now, as an SVG whose lines appear one after the other.

python docs/recording.py FILE.svg

The commands run in a new folder, in a terminal of 96 columns (``pyte`` plays it: pip install pyte), beside the embedded
digits as images. What the picture shows is what they printed. They take some minutes.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from fcntl import ioctl
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, LINES = 96, 400
COMMANDS = (
    "dmp sample --backbone digits -n 5391 --tar --guidance 1 --steps 50 --batch-size 600 --seed 1 -o own",
    "dmp train --backbone digits --data own --no-flip --method lora --lr 1e-3 --ema 0.999 --steps 2000 -o negative",
    "dmp sample --backbone digits -n 1797 --guidance 1 --steps 50 -o base",
    "dmp sample --backbone digits -n 1797 --guidance 1 --steps 50 --against negative/adapter-ema -o led",
    "dmp eval --samples base --samples led --reference digits --features digits --metrics fid -o scores",
)
PAUSE, LINE = 0.9, 0.06  # seconds before a command's lines, and between two lines
END = 6.0  # seconds until it begins anew


def play(command: str, folder: Path) -> list[str]:
    """What a terminal of COLUMNS columns shows after ``command``, with colours as ANSI codes."""
    import pyte

    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    words = [sys.executable, "-m", "dmp_cli", *shlex.split(command)[1:]]
    told = {
        **os.environ,
        "TERM": "xterm-256color",
        "COLUMNS": str(COLUMNS),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    running = subprocess.Popen(words, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=told)
    os.close(theirs)
    with contextlib.suppress(OSError):  # the end of a terminal
        while read := os.read(ours, 1 << 16):
            stream.feed(read)
    os.close(ours)
    if running.wait():
        raise SystemExit("\n".join(screen.display).rstrip() + f"\n{command}: exit code {running.returncode}")
    rows = [_ansi(screen.buffer[row]) for row in range(screen.cursor.y + 1)]
    while rows and not rows[-1].strip():
        rows.pop()
    return rows


def _ansi(cells: object) -> str:
    """One line of a screen with its colours."""
    from rich.color import Color
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    line = Text()
    for column in range(COLUMNS):
        cell = cells[column]  # type: ignore[index]
        colour = None if cell.fg == "default" else _colour(cell.fg)
        line.append(cell.data, Style(color=colour and Color.parse(colour), bold=cell.bold, dim=False))
    line.rstrip()
    console = Console(width=COLUMNS, force_terminal=True, color_system="truecolor", file=io.StringIO())
    with console.capture() as captured:
        console.print(line, end="", soft_wrap=True)
    return captured.get()


def _colour(name: str) -> str:
    """A colour of pyte as rich names it."""
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return {"brown": "yellow"}.get(name, name.replace("bright", "bright_"))


def draw(blocks: list[tuple[str, list[str]]], path: Path) -> None:
    """Write the SVG: rich draws all lines, and a style lets each of them appear at its time."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    times, now = [], 0.0
    for command, rows in blocks:
        words = textwrapped(command)
        for row in words:
            console.print(Text(row, style="bold green"), soft_wrap=True)
            times.append(now)
        now += PAUSE
        for row in rows:
            console.print(Text.from_ansi(row), soft_wrap=True)
            times.append(now)
            now += LINE
        console.print()
        times.append(now)
        now += PAUSE
    svg = console.export_svg(title="dmp", font_aspect_ratio=0.61)
    path.write_text(animated(svg, times, now + END), encoding="utf-8")


def textwrapped(command: str) -> list[str]:
    """``$ command``, over several lines where it is long."""
    import textwrap

    return textwrap.wrap(f"$ {command}", COLUMNS - 4, subsequent_indent="    ", break_on_hyphens=False)


def animated(svg: str, times: list[float], whole: float) -> str:
    """The same picture, in which line K appears after ``times[K]`` seconds. Without animation all lines are there."""
    rules = []
    for at, time in enumerate(times):
        share = 100 * time / whole
        rules += [
            f"@keyframes line{at} {{0%, {share:.2f}% {{opacity: 0}} {share + 0.01:.2f}%, 100% {{opacity: 1}}}}",
            f".line{at} {{animation: line{at} {whole:.1f}s infinite}}",
        ]
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # of another host: the viewer's own fonts do
    still = "@media (prefers-reduced-motion: reduce) {text {animation: none !important}}"

    line = re.compile(r'<text class="([^"]*)"([^>]*?) clip-path="url\(#([\w-]+)-line-(\d+)\)"')
    svg = line.sub(r'<text class="\1 line\4"\2 clip-path="url(#\3-line-\4)"', svg)
    return svg.replace("</style>", "\n".join([*rules, still]) + "\n</style>", 1)


def main() -> None:
    """Run the commands and write the picture."""
    sys.path.insert(0, str(ROOT))
    from dmp_cli.demo import write_digits

    path = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder) / "digits")
        draw([(command, play(command, Path(folder))) for command in COMMANDS], path)


if __name__ == "__main__":
    main()
