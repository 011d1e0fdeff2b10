"""CogView4: every row of a batch as the row alone, however long the captions beside it are; and its own timestep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dmp_cli.analysis.magnitude import measure_added
from dmp_cli.backbones import Backbone, framed, load_backbone, own_rows
from dmp_cli.backbones.cogview4 import CogView4
from dmp_cli.config import TrainConfig
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching import attach
from dmp_cli.patching.versions import AdapterVersions, PatchVersions
from dmp_cli.training import prepare
from tests.backbones.joined_pipelines import write_cogview4_pipeline
from tests.builders import filled_patch
from tests.patching.adapters import create, fill

TEXTS = ("two cats " * 20, "a red fox", "two cats " * 10, "", "a blue bird", "red " * 40)  # 48, 16, 32, 16, 16, 48
LEVELS = torch.tensor([0.1, 0.35, 0.5, 0.62, 0.8, 1.0])
_FOLDER: list[Path] = []


@pytest.fixture
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny CogView4; its folder is written once."""
    if not _FOLDER:
        _FOLDER.append(tmp_path_factory.mktemp("cogview4"))
        write_cogview4_pipeline(_FOLDER[0])
    return load_backbone(str(_FOLDER[0]))


def samples(count: int = len(TEXTS)) -> Tensor:
    """As many samples as there are captions."""
    return torch.randn(count, 16, 8, 8, generator=torch.Generator().manual_seed(0))


def check_rows(backbone: Backbone, predict: Callable[..., Tensor], alone: Callable[..., Tensor] | None = None) -> None:
    """Hold each row of ``predict`` to what ``alone`` gives for it, given its number too."""
    x, condition = samples(), backbone.captions.indices(TEXTS)
    with torch.no_grad():
        together = predict(x, LEVELS, condition)
        for row in range(len(TEXTS)):
            one = slice(row, row + 1)
            told = (x[one], LEVELS[one], condition[one])
            expected = predict(*told) if alone is None else alone(*told, row)
            assert (together[one] - expected).norm() <= 1e-6 * expected.norm(), row


def test_a_row_is_computed_as_alone(backbone: Backbone) -> None:
    check_rows(backbone, backbone)
    patched = attach(backbone, filled_patch(backbone))
    check_rows(backbone, patched)
    patched.detach()
    check_rows(backbone, attach(backbone, filled_patch(backbone, experts="both", num_experts=2, expert_rank=2)))


def test_padded_beside_a_longer_one_it_would_be_another(backbone: Backbone) -> None:
    assert isinstance(backbone, CogView4)
    text = backbone.captions.look_up(backbone.captions.indices(TEXTS))
    with torch.no_grad():
        padded = backbone.predict(samples(), LEVELS, text)
        own = backbone(samples(), LEVELS, backbone.captions.indices(TEXTS))
    far = (padded - own).flatten(1).norm(dim=1) / own.flatten(1).norm(dim=1)
    assert (far > 1e-3).tolist() == [False, True, True, True, True, False]


def test_what_goes_with_a_row_goes_with_it_alone(backbone: Backbone) -> None:
    frames = torch.tensor([[64 + 8 * row, 72, row, 2 * row, 64, 64] for row in range(len(TEXTS))])

    def cut(x: Tensor, levels: Tensor, condition: Tensor, row: int) -> Tensor:
        with framed.given(frames[row : row + 1]):
            return backbone(x, levels, condition)

    with framed.given(frames):
        check_rows(backbone, backbone, cut)
    patched = attach(backbone, filled_patch(backbone))
    noise = torch.randn(len(TEXTS), 1, patched.patch.gate_outputs, generator=torch.Generator().manual_seed(1))

    def moved(x: Tensor, levels: Tensor, condition: Tensor, row: int) -> Tensor:
        with patched.noisy(lambda vector: vector.mean(1)[:, None, None] * noise[row : row + 1]):
            return patched(x, levels, condition)

    with patched.noisy(lambda vector: vector.mean(1)[:, None, None] * own_rows(noise)):
        check_rows(backbone, patched, moved)


def test_versions_side_by_side(backbone: Backbone) -> None:
    against = torch.tensor([True, False, False, True, True, False])

    def check(versions: Any) -> None:
        def alone(x: Tensor, levels: Tensor, condition: Tensor, row: int) -> Tensor:
            found: Tensor = (versions.theirs if against[row] else versions.ours)(x, levels, condition)
            return found

        check_rows(backbone, lambda *call: versions(*call, against=against), alone)

    patched = attach(backbone, filled_patch(backbone))
    attach(backbone, filled_patch(backbone, seed=3), name="other")
    check(PatchVersions(patched, theirs=("other",)))
    patched.detach()
    pytest.importorskip("peft")
    fill(create(backbone))
    check(AdapterVersions(backbone, is_ours=True))
    check(AdapterVersions(backbone, is_ours=False))


def test_kept_gate_weights_are_of_the_size_of_the_samples(backbone: Backbone) -> None:
    patched = attach(backbone, filled_patch(backbone))
    x, condition = samples(1), backbone.captions.indices(("a red fox",))
    with torch.no_grad():
        for side in (8, 12):
            backbone.resize(side)
            given = torch.nn.functional.interpolate(x, (side, side)), torch.tensor([0.5]), condition
            with patched.at(0.5):
                kept = patched(*given)
            assert torch.allclose(kept, patched(*given), atol=1e-6)


def test_what_a_patch_adds_is_measured_over_all_rows(backbone: Backbone) -> None:
    patched, condition = attach(backbone, filled_patch(backbone)), backbone.captions.indices(TEXTS[:2])
    how: dict[str, Any] = {"timesteps": [0.3, 0.9], "seed": 0}
    long, short = condition[:1], condition[1:]

    def hidden(count: int, *conditions: Tensor) -> Any:
        return measure_added(patched, samples(count), condition=torch.cat(conditions), **how).hidden

    mixed, second = hidden(2, long, short), 2 * hidden(2, short, short) - hidden(1, short)  # of the second image alone
    assert mixed.shape == (2, len(patched.patch.prompts))
    np.testing.assert_allclose(mixed, (hidden(1, long) + second) / 2, rtol=1e-5)
    assert abs(hidden(1, long) - hidden(1, short)).max() > 1e-2


@pytest.mark.parametrize("side", [8, 64, 128, 256])
def test_its_own_timesteps_are_those_of_the_pipeline(backbone: Backbone, side: int) -> None:
    backbone.resize(side)
    whole = torch.arange(1, 1001)
    mu = 0.75 * ((side // 2) ** 2 / 256) ** 0.5 + 0.25
    levels = (mu / (mu + 1000 / whole.double() - 1)).float()  # as the scheduler moves them
    read: list[Tensor] = []
    backbone.time_features.register_forward_pre_hook(lambda module, args: read.append(args[0]))  # type: ignore[union-attr]
    backbone.gate_vector(levels)
    assert torch.equal(read[0], whole.float())
    assert backbone.level_rule.shift == pytest.approx(mu)
    assert backbone.level_rule.kind == "uniform"


def test_spread_weights_are_refused(backbone: Backbone) -> None:
    config = TrainConfig(data=Path("unused"), shard_backbone=True)
    with pytest.raises(ConfigError, match="as many forwards as its captions have lengths"):
        prepare(config, backbone=backbone, codec=PixelCodec(3))


@pytest.mark.slow
def test_gradients_of_a_compiled_batch(backbone: Backbone) -> None:
    patched, condition = attach(backbone, filled_patch(backbone)), backbone.captions.indices(TEXTS)
    noise = torch.randn(len(TEXTS), 1, patched.patch.gate_outputs, generator=torch.Generator().manual_seed(1))

    def learn(call: Callable[..., Tensor]) -> list[Tensor]:
        patched.patch.zero_grad()
        with patched.noisy(lambda vector: vector.mean(1)[:, None, None] * own_rows(noise)):
            call(samples(), LEVELS, condition).square().mean().backward()
        return [parameter.grad.clone() for parameter in patched.patch.parameters() if parameter.grad is not None]

    expected = learn(patched)
    torch._dynamo.reset()
    found = learn(torch.compile(patched, dynamic=False, backend="eager"))
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
