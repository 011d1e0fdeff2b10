"""A generated part of a page, between two marks: written anew, or compared with what is there."""

from __future__ import annotations

import sys
from pathlib import Path


def renew(page: Path, marks: tuple[str, str], content: str) -> int:
    """Write ``content`` between the marks; with ``--check`` among the words typed, compare instead: 1 is another."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(marks[0])
    wanted = f"{before}{marks[0]}\n{content}\n{marks[1]}{rest.split(marks[1], 1)[1]}"
    if "--check" in sys.argv[1:]:
        if wanted != text:
            print(f"{page.name} is not current: run python {sys.argv[0]}", file=sys.stderr)
        return int(wanted != text)
    page.write_text(wanted, encoding="utf-8")
    return 0
