"""The README's table of what is read: generated from the builders of public layouts in ``tests/zoo``.

python docs/what_is_read.py             write the table into README.md anew
python docs/what_is_read.py --check     fail where it is not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "README.md"
BEGIN, END = "<!-- what is read -->\n", "<!-- end -->\n"


def rows() -> list[tuple[str, Iterable[str], Iterable[str]]]:
    """(what, what of it is read, what is refused by name), each from the builders that the tests go through."""
    sys.path.insert(0, str(ROOT))
    from dmp_cli.data.kinds import _AVIF, _FIRST, _HEIF, _SECOND
    from tests.zoo import (
        captioned,
        checkpoints,
        diffusers_folders,
        original_sd,
        public_pipelines,
        schedulers,
        shards,
        texts,
    )

    flows = ("LightningDiT", "MeanFlow", "other flow matching")  # by their own options: LIGHTNING_DIT_CONFIG
    heif = [f"`{suffix}` (extra `heic`)" for suffix in sorted(_HEIF)]
    return [
        ("training checkpoints of DiTs, as left by", checkpoints.LAYOUTS, flows),
        ("training checkpoints of flows, as left by", [*checkpoints.FLOWS, *checkpoints.TOLD_FLOWS], ()),
        ("folders of diffusers", diffusers_folders.LAYOUTS, ()),
        ("pipelines, as published", public_pipelines.LAYOUTS, ()),
        ("schedulers, as of", [*schedulers.DDPM_LIKE, *schedulers.FLOWS], schedulers.OTHER),
        ("single files of Stable Diffusion", original_sd.LAYOUTS, ()),
        (
            "images",
            [*(f"`{suffix}`" for suffix in sorted(_FIRST | _SECOND | _AVIF)), *heif],
            ("all other kinds, counted",),
        ),
        ("captions and names", captioned.LAYOUTS, ()),
        ("shards", shards.LAYOUTS, shards.REFUSED),
        ("text files, as written by", texts.WRITERS, texts.UNREADABLE),
    ]


def table() -> str:
    """The table in Markdown."""
    lines = ["| what | read | refused, with the reason |", "|---|---|---|"]
    lines += [f"| {what} | {'; '.join(read)} | {'; '.join(refused)} |" for what, read, refused in rows()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END, 1)
    current = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        if text != current:
            print("the table of what is read is not current: run python docs/what_is_read.py", file=sys.stderr)
        return int(text != current)
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
