"""What the site needs beyond its pages: files from outside of docs/ as pages, links that lead there, tables of fields.

mkdocs calls the functions whose names begin with ``on_``; see ``hooks`` in mkdocs.yml.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# Pages from elsewhere in the repository, by their names in the site.
BROUGHT = {
    "overview.md": "README.md",  # mkdocs takes a page called README for the index
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "results.md": "benchmarks/RESULTS.md",
}
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?((?:\s+\"[^\"]*\")?)\)")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from elsewhere."""
    for name, path in BROUGHT.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to pages of the site; of one that leads to other files of the repository its text stays."""
    own = page.file.src_uri
    home = posixpath.dirname(BROUGHT.get(own, f"docs/{own}"))

    def moved(found: re.Match[str]) -> str:
        text, target, anchor, title = found[1], found[2], found[3] or "", found[4] or ""
        if re.match(r"[a-z]+:", target):
            return found[0]
        place = posixpath.normpath(posixpath.join(home, target))
        name = _name_in_site(place)
        if name is None or files.get_file_from_path(name) is None or name.endswith((".py", ".txt")):
            return text if (ROOT / place).exists() else found[0]  # mkdocs complains of one that leads nowhere
        return f"[{text}]({posixpath.relpath(name, posixpath.dirname(own) or '.')}{anchor}{title})"

    def pictured(found: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(home, found[2]))
        name = _name_in_site(place)
        return found[0] if name is None else f"![{found[1]}]({posixpath.relpath(name, posixpath.dirname(own) or '.')})"

    parts = re.split(r"(```.*?```)", markdown, flags=re.DOTALL)
    parts[::2] = [_IMAGE.sub(pictured, _LINK.sub(moved, part)) for part in parts[::2]]
    return re.sub(r"<!-- fields: (\w+) -->", lambda found: fields_of(found[1]), "".join(parts))


def _name_in_site(place: str) -> str | None:
    """The name in the site of a file of the repository; None: it is not in the site."""
    for name, path in BROUGHT.items():
        if place == path:
            return name
    return place.removeprefix("docs/") if place.startswith("docs/") else None


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name other functions as :func:`name`; the site shows the name."""
    return re.sub(r":(?:func|meth|class|mod):(?=<code>)", "", html)


def fields_of(name: str) -> str:
    """A table of the fields of a config: name, default and what it does."""
    from pydantic_core import PydanticUndefined

    import dmp_cli

    rows = ["| field | default | what it does |", "|---|---|---|"]
    for field, info in getattr(dmp_cli, name).model_fields.items():
        told = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        default = "needed" if info.default is PydanticUndefined else f"`{info.default!r}`"
        if info.default is None and told.get("shown"):
            default = html.escape(str(told["shown"]))
        said = html.escape(info.description or "").replace("|", "\\|")
        rows.append(f"| `{field}` | {default.replace('|', chr(92) + '|')} | {said} |")
    return "\n".join(rows)
