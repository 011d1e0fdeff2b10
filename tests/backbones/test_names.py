"""Names of public backbones stand for their published sizes, and their patches are as small as promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.backbones import build_backbone
from dmp_cli.backbones.names import PUBLIC_HOMES, named_sizes
from dmp_cli.config import CodecRecord, PatchConfig
from dmp_cli.patching import create_patch

# Name -> parameters; blocks, tokens at its own size (1,024 pixels, 512 for AuraFlow) and width of its prompts; and how
# much of it the prompts of a patch are by default, in per cent: 256 a block, or where it is below 2 % one a token. A
# table of positions is a buffer, which is not counted: it is 226 M values in the file of sd3.5-medium. AuraFlow's is a
# parameter, of 9,216 places in its file.
PUBLIC = {
    "sd3-medium": (2_028_328_000, 24, 4096, 1536, 0.47),
    "sd3.5-medium": (2_243_171_520, 24, 4096, 1536, 0.42),
    "sd3.5-large": (8_056_627_520, 38, 4096, 2432, 0.29),
    "flux-dev": (11_901_408_320, 19 + 38, 4096, 3072, 0.38),
    "flux-schnell": (11_891_178_560, 19 + 38, 4096, 3072, 0.38),
    "pixart-sigma": (610_856_096, 28, 4096, 1152, 1.35),
    "sana-1600m": (1_604_462_752, 20, 1024, 2240, 0.71),
    "sana-600m": (591_747_872, 28, 1024, 1152, 1.40),
    "lumina2": (2_609_769_152, 2 + 26, 4096, 2304, 0.63),
    "auraflow": (6_833_439_744 + (9216 - 1024) * 3072, 4 + 32, 1024, 3072, 1.65),
    "cogview4": (6_369_118_272, 28, 4096, 4096, 0.46),
    "qwen-image": (20_430_401_088, 60, 4096, 3072, 0.23),
    "hunyuan-dit-1.1": (1_516_534_048, 40, 4096, 1408, 0.95),
    "hunyuan-dit-1.2": (1_499_952_032, 40, 4096, 1408, 0.96),
    "z-image-turbo": (6_154_908_736, 2 + 30, 4096, 3840, 0.51),
}


LONG = ("sana-1600m", "lumina2", "qwen-image", "hunyuan-dit-1.1", "z-image-turbo")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in PUBLIC])
def test_a_patch_for_a_public_size_is_small(name: str) -> None:
    parameters, blocks, tokens, width, share = PUBLIC[name]
    backbone = build_backbone(name)
    assert backbone.num_parameters() == parameters
    made = {}
    for grid in (None, "tokens"):
        config = PatchConfig() if grid is None else PatchConfig(prompt_grid=grid)
        patch = create_patch(backbone, config, codec=CodecRecord(), image_size=1024)
        made[grid] = [tuple(prompt.shape) for prompt in patch.prompts]
        if grid is None:
            assert round(100 * sum(p.numel() for p in patch.prompts) / parameters, 2) == share
            assert sum(p.numel() for p in patch.parameters()) < 1.1 * sum(p.numel() for p in patch.prompts)
    default = tokens if name == "auraflow" else 256
    assert made == {None: [(default, width)] * blocks, "tokens": [(tokens, width)] * blocks}


def test_every_name_with_a_home_has_sizes() -> None:
    assert set(PUBLIC) < set(PUBLIC_HOMES)
    assert all(named_sizes(name) for name in PUBLIC_HOMES)


def test_a_folder_that_is_called_nearly_like_a_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Qwen-Image", "DiT-L/2", "qwen-image"):
        assert named_sizes(name) is not None
        assert named_sizes(f"{name}/") is None
        Path(name).mkdir(parents=True)
    assert named_sizes("Qwen-Image") is None
    assert named_sizes("DiT-L/2") is None
    assert named_sizes("qwen-image") is not None
