"""U-Nets of diffusers: their blocks, patches on feature maps, other sizes, and what is refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dmp_cli import attach, load_patch, save_patch
from dmp_cli.backbones import as_backbone, build_backbone, load_backbone, reload_backbone
from dmp_cli.config import PatchConfig, ScheduleConfig
from dmp_cli.errors import CheckpointError, PatchError
from dmp_cli.patching.attachment import create_patch
from dmp_cli.patching.identity import backbone_digest
from tests.backbones.pipelines import tiny_plain_unet, tiny_unet, write_scheduler
from tests.builders import PIXELS, filled_patch, zero_patch

SHAPES = [(16, 16, 16), (8, 8, 16), (8, 8, 32), (8, 8, 32), (16, 16, 32)]  # of the tiny U-Net's blocks, by hand


def call(unet: Any, *, side: int = 16, seed: int = 0) -> Any:
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(2, unet.config["in_channels"], side, side, generator=source, dtype=unet.dtype)
    timesteps = torch.tensor([3, 900])
    if type(unet).__name__ == "UNet2DModel":
        return unet(x, timesteps).sample
    text = torch.randn(2, 5, unet.config["cross_attention_dim"], generator=source, dtype=unet.dtype)
    return unet(x, timesteps, text).sample


def test_stable_diffusion_has_the_papers_count() -> None:
    backbone = build_backbone("sd-v1.5")
    patch = zero_patch(backbone)
    assert backbone.num_parameters() == 859_520_964
    assert patch.num_parameters() == 2_889_728  # paper: +0.32 % of 890M
    assert patch.hidden_shapes == [
        (32, 32, 320), (16, 16, 320), (8, 8, 640), (4, 4, 1280), (4, 4, 1280),
        (4, 4, 1280), (8, 8, 1280), (16, 16, 1280), (32, 32, 640),
    ]  # fmt: skip
    assert (patch.gate_width, patch.num_prompts) == (1280, 1024)


@pytest.mark.parametrize("make", [tiny_unet, tiny_plain_unet])
def test_block_inputs_have_the_shapes_that_are_listed(make: Any) -> None:
    unet = make()
    seen = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(tuple(backbone.take_hidden(args, kwargs).shape[1:]))

    backbone = as_backbone(unet)
    for block in backbone.list_blocks():
        block.module.register_forward_pre_hook(note, with_kwargs=True)
    call(unet, side=unet.config["sample_size"])
    assert seen == [(c, h, w) for h, w, c in (block.hidden_shape for block in backbone.list_blocks())]
    assert len(seen) == 5


@pytest.mark.parametrize("make", [tiny_unet, tiny_plain_unet])
@pytest.mark.parametrize("variant", [{}, {"gate": "none"}, {"gate": "constant"}, {"scope": "uniform"}, {"depth": 2}])
def test_attaching_changes_no_bit_and_detaching_neither(make: Any, variant: dict[str, Any]) -> None:
    unet = make()
    bare = call(unet)
    patched = attach(unet, zero_patch(as_backbone(unet), **variant))
    assert torch.equal(call(unet), bare)
    for prompts in patched.patch.prompts:
        torch.nn.init.normal_(prompts)
    assert not torch.equal(call(unet), bare)
    with patched.disabled():
        assert torch.equal(call(unet), bare)
    patched.detach()
    assert torch.equal(call(unet), bare)


def slow_mixtures(patch: Any, vector: torch.Tensor) -> list[torch.Tensor]:
    """What is added to each block, (C, H, W), for one gate vector (D,), by loops over places."""
    side = patch.grid[0]
    mixtures = []
    for index, prompts in enumerate(patch.prompts):
        height, width, channels = prompts.shape
        reads = torch.cat([vector, torch.tensor([float(index)], dtype=vector.dtype)])
        probabilities = torch.softmax(patch.gate.weight @ reads + patch.gate.bias, 0).view(side, side)
        added = torch.zeros(channels, height, width, dtype=vector.dtype)
        for row in range(side):
            for column in range(side):
                y, x = row * height // side, column * width // side
                added[:, y, x] = added[:, y, x] + probabilities[row, column] * prompts[y, x]
        mixtures.append(added)
    return mixtures


def test_what_is_added_by_hand_with_gradients() -> None:
    unet = tiny_unet().double()
    backbone = as_backbone(unet)
    patch = filled_patch(backbone).double()
    patched = attach(unet, patch)
    own = call(unet).square().sum()
    own.backward()
    found = [parameter.grad.clone() for parameter in patch.parameters()]
    patch.zero_grad()
    patched.detach()
    vectors = backbone.gate_vector(torch.tensor([3, 900])).detach()
    per_image = [slow_mixtures(patch, vector) for vector in vectors]
    handles = []
    for index, block in enumerate(backbone.list_blocks()):
        added = torch.stack([mixtures[index] for mixtures in per_image])

        def add(module: Any, args: Any, kwargs: Any, added: torch.Tensor = added) -> Any:
            return backbone.put_hidden(args, kwargs, backbone.take_hidden(args, kwargs) + added)

        handles.append(block.module.register_forward_pre_hook(add, with_kwargs=True))
    expected = call(unet).square().sum()
    expected.backward()
    assert own.item() == pytest.approx(expected.item(), rel=1e-12)
    for gradient, parameter in zip(found, patch.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-8, atol=1e-10)


def test_the_weights_of_every_block_sum_to_one() -> None:
    backbone = as_backbone(tiny_unet())
    patch = filled_patch(backbone)
    weights = patch.spread(patch(torch.randn(3, patch.gate_width)).weights)
    assert [tuple(w.shape) for w in weights] == [(3, 1, *shape[:2]) for shape in SHAPES]
    for own in weights:
        torch.testing.assert_close(own.sum((1, 2, 3)), torch.ones(3))
    constant = filled_patch(backbone, gate="constant")
    for own in constant.spread(constant(torch.zeros(1, patch.gate_width)).weights):
        torch.testing.assert_close(own, torch.full_like(own, 1 / own.numel()))
    tuned = filled_patch(backbone, gate="none")
    for own, shape in zip(tuned.spread(tuned(torch.zeros(1, patch.gate_width)).weights), SHAPES, strict=True):
        assert torch.equal(own, torch.ones(1, 1, *shape[:2]))  # every prompt as it is (Eq. 2), on every grid


@pytest.mark.parametrize("side", [8, 32, 64])
def test_prompts_work_at_other_sizes(side: int) -> None:
    unet = tiny_unet()
    patch = filled_patch(as_backbone(unet))
    bare = call(unet, side=side)
    seen: dict[str, torch.Tensor] = {}
    first = unet.down_blocks[0]

    def keep(name: str) -> Any:
        return lambda module, args, kwargs: seen.update({name: kwargs["hidden_states"].clone()})

    before = first.register_forward_pre_hook(keep("before"), with_kwargs=True)
    attach(unet, patch)
    after = first.register_forward_pre_hook(keep("after"), with_kwargs=True)
    assert call(unet, side=side).shape == bare.shape
    before.remove(), after.remove()
    vector = as_backbone(unet).gate_vector(torch.tensor([3, 900]))
    weights = patch(vector).weights[:, 0].view(2, 1, 16, 16)
    resized = [
        F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
        for maps in (weights, patch.prompts[0].permute(2, 0, 1)[None])
    ]
    torch.testing.assert_close(seen["after"] - seen["before"], resized[0] * resized[1], rtol=1e-4, atol=1e-6)


def test_only_the_patch_learns_and_the_unet_keeps_its_names_and_digest() -> None:
    unet = tiny_unet()
    names, backbone = set(unet.state_dict()), as_backbone(unet)
    before = backbone_digest(backbone)
    patched = attach(unet, filled_patch(backbone))
    call(unet).sum().backward()
    learning = {name for name, p in patched.named_parameters() if p.requires_grad}
    assert learning == {f"patch.{name}" for name, _ in patched.patch.named_parameters()}
    assert all(p.grad is None for p in unet.parameters())
    assert set(unet.state_dict()) == set(backbone.state_dict()) == names
    assert backbone_digest(backbone) == before


@pytest.mark.parametrize("carry", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_copies_carry_their_own_patch(carry: Any) -> None:
    unet = tiny_unet()
    patched = attach(unet, filled_patch(as_backbone(unet)))
    before = call(unet)
    other = carry(patched)
    for parameter in other.patch.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(call(unet), before)
    assert not torch.equal(call(other.backbone.model), before)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"in_channels": 9}, "inpainting"), ({"class_embed_type": "timestep"}, "class embeddings")],
)
def test_unets_with_unsupported_conditions_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        as_backbone(tiny_unet(**changes))


def test_a_folder_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    unet = tiny_plain_unet()
    unet.save_pretrained(tmp_path / "unet")
    write_scheduler(tmp_path / "unet", beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    backbone = load_backbone(str(tmp_path / "unet"))
    assert torch.equal(call(backbone.model), call(unet))
    expected = {"kind": "cosine", "beta_start": 0.00085, "beta_end": 0.012, "prediction": "v_prediction"}
    assert backbone.schedule == ScheduleConfig(**expected)
    assert not backbone.takes_text
    assert not backbone.training


def test_a_patch_file_finds_its_unet_again_and_fits_the_stock_one(tmp_path: Path) -> None:
    unet = tiny_plain_unet()
    unet.save_pretrained(tmp_path / "unet")
    write_scheduler(tmp_path / "unet")
    backbone = load_backbone(str(tmp_path / "unet"))
    patch = create_patch(backbone, PatchConfig(), codec=PIXELS, image_size=8)
    for parameter in patch.parameters():
        torch.nn.init.normal_(parameter)
    save_patch(tmp_path / "p.safetensors", patch)
    read = load_patch(tmp_path / "p.safetensors")
    assert read.record is not None
    attach(reload_backbone(read.record), read)
    stock = tiny_plain_unet()
    bare = call(stock)
    attach(stock, load_patch(tmp_path / "p.safetensors"))  # as on pipe.unet
    attach(backbone, patch)
    assert torch.equal(call(stock), call(backbone.model))
    assert not torch.equal(call(stock), bare)
    half = tiny_plain_unet()
    with torch.no_grad():
        for parameter in half.parameters():
            parameter.copy_(parameter.bfloat16())
    half.save_pretrained(tmp_path / "half")
    write_scheduler(tmp_path / "half")
    kept = create_patch(load_backbone(str(tmp_path / "half")), PatchConfig(), codec=PIXELS, image_size=8)
    with pytest.warns(UserWarning, match="half precision"):
        attach(half.bfloat16(), kept)  # the same weights in another precision have the same digest
    with pytest.raises(PatchError, match="other weights"):
        attach(tiny_plain_unet(seed=1), load_patch(tmp_path / "p.safetensors"))
    with pytest.raises(PatchError, match="attached already"):
        attach(stock, load_patch(tmp_path / "p.safetensors"))
