"""Other methods on every family: experts under the gate, adapters of peft, and all its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones import Backbone, load_backbone
from dmp_cli.config import PatchConfig, TrainConfig
from dmp_cli.diffusion import make_process
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.training import prepare

from .cases import Case
from .shown import shows
from .test_attached import draws

pytestmark = pytest.mark.slow


def one_step(case: Case, backbone: Backbone, **options: Any) -> Any:
    """What a method makes ready to be trained, after one step that has lowered the loss."""
    patch = options.pop("patch", None)
    config = TrainConfig(data=Path("data"), lr=1e-3, **options)
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3), patch_config=patch)
    x0, levels, condition = draws(case, backbone)
    process, noise = make_process(backbone.schedule), torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))

    def loss() -> torch.Tensor:
        xt = process.add_noise(x0, noise=noise, timesteps=levels)
        found = trainee.denoiser(xt, levels, condition)
        return process.loss(found, x0=x0, xt=xt, noise=noise, timesteps=levels).mse.mean()

    before = loss()
    before.backward()
    moved = 0
    with torch.no_grad():
        for parameter in trainee.learnt.values():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad / parameter.grad.norm().clamp(min=1e-12)
                moved += 1
    assert moved
    assert float(loss().detach()) < float(before.detach())
    return trainee


@shows("experts", lambda case: "yes")
def test_experts_under_the_gate(case: Case, backbone: Backbone) -> None:
    trainee = one_step(case, backbone, patch=PatchConfig(experts="both", num_experts=2, expert_rank=2))
    assert trainee.denoiser.patch.expert_layers


@shows("LoRA", lambda case: "LoRA")
@shows("LoRA", lambda case: "DoRA")
@shows("LoRA", lambda case: "BitFit")
@shows("LoRA", lambda case: "DiffFit")
@pytest.mark.parametrize("method", ["lora", "dora", "bitfit", "difffit"])
def test_small_changes_of_the_weights(case: Case, backbone: Backbone, method: str, tmp_path: Path) -> None:
    trainee = one_step(case, backbone, method=method)
    blocks = [block.name for block in backbone.list_blocks()]
    touched = [block for block in blocks if any(f"{block}." in name for name in trainee.learnt)]
    # the blocks of AuraFlow have no biases, and those of a U-Net no attention everywhere
    expected = {"AuraFlow": 0 if method == "bitfit" else 2, "SD 1.5": 1, "SDXL": 1}.get(case.name, 2)
    assert len(touched) >= expected
    assert trainee.learnt
    trainee.write(tmp_path / f"learnt{trainee.file_suffix}", dict(trainee.learnt), {})
    assert list(tmp_path.rglob("*"))


@shows("full", lambda case: "yes")
def test_all_weights_in_a_file_of_our_own(case: Case, place: Path, backbone: Backbone, tmp_path: Path) -> None:
    trainee = one_step(case, backbone, method="full")
    x, levels, condition = draws(case, backbone)
    trainee.write(tmp_path / "whole.safetensors", dict(trainee.learnt), {})
    again = load_backbone(str(tmp_path / "whole.safetensors"))
    assert again.schedule == backbone.schedule
    assert again.flow_sampler == backbone.flow_sampler
    assert again.sample_shape == backbone.sample_shape
    with torch.no_grad():
        case.conditions(again)  # its captions get the same indices
        assert torch.equal(again(x, levels, condition), backbone(x, levels, condition))
