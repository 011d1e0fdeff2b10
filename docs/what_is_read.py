"""The README's table of what is read: generated from the builders of public layouts in ``tests/zoo``.

python docs/what_is_read.py             write the table into README.md anew
python docs/what_is_read.py --check     fail where it is not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from in_page import renew

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
    return renew(PAGE, (BEGIN, END), table())


if __name__ == "__main__":
    sys.exit(main())
