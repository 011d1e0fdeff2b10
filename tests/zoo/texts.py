"""Texts as the editors of different systems leave them: the same lines, other bytes."""

from __future__ import annotations

from collections.abc import Callable

# What writes so: lines of text, ended by a line feed each -> the bytes of the file.
WRITERS: dict[str, Callable[[str], bytes]] = {
    "any editor of Unix": lambda text: text.encode(),
    "Notepad, UTF-8": lambda text: text.replace("\n", "\r\n").encode(),
    "Notepad, UTF-8 with BOM": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "Set-Content of PowerShell 5": lambda text: text.encode("utf-8-sig"),
    "an editor of Mac OS 9": lambda text: text.replace("\n", "\r").encode(),
}

# What writes what cannot be read: the bytes, and what is said of them.
UNREADABLE: dict[str, tuple[Callable[[str], bytes], str]] = {
    "> of PowerShell 5": (lambda text: text.replace("\n", "\r\n").encode("utf-16"), "is UTF-16 text, not UTF-8 text"),
    "UTF-16, big end first": (lambda text: b"\xfe\xff" + text.encode("utf-16-be"), "is UTF-16 text, not UTF-8 text"),
    "UTF-32": (lambda text: b"\xff\xfe\0\0" + text.encode("utf-32-le"), "is UTF-32 text, not UTF-8 text"),
    "Notepad, ANSI": (lambda text: ("\n" + text + "é").encode("cp1252"), "is not UTF-8 text: line"),
}
