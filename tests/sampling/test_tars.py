"""The tars of a folder of samples: what lies beside each image in them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np

from dmp_cli.sampling.folder import SampleFolder


def test_prompts_may_hold_any_character(tmp_path: Path) -> None:
    folder = SampleFolder(tmp_path / "s", tar=True)
    folder.open({}, origin={}, num_images=2, force=False)
    prompts = ["one\u2028line\x85", "a fox"]
    folder.write_plan(lambda: (f'{{"index": {index}, "prompt": "{text}"}}\n' for index, text in enumerate(prompts)))
    folder.write({index: np.zeros((2, 2, 3), np.uint8) for index in range(2)})
    folder.pack(2)
    with tarfile.open(tmp_path / "s" / "samples-00000.tar") as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        notes = [members[f"{index:06d}.txt"] for index in range(2)]
        assert [note.read().decode() for note in notes if note is not None] == prompts
