"""Models of diffusers that no family names, patched by hand."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_cli import PatchConfig, attach, create_patch, load_patch, save_patch, wrap_by_hand
from dmp_cli.backbones import as_backbone
from dmp_cli.config import CodecRecord, PatchRecord
from dmp_cli.errors import CheckpointError, DMPError, PatchError
from dmp_cli.patching import Patch
from dmp_cli.storage import check_types

from .by_hand_models import MODELS, Foreign, cogview3, flux2
from .pipelines import tiny_plain_unet


def made(foreign: Foreign, *, seed: int = 1, **config: Any) -> Patch:
    """A patch of the model whose prompts are not zero."""
    backbone = wrap_by_hand(foreign.model, **foreign.said)
    patch = create_patch(backbone, PatchConfig(**config), codec=CodecRecord(), image_size=8, seed=seed)
    torch.manual_seed(seed)
    for prompts in patch.prompts:
        torch.nn.init.normal_(prompts, std=3.0)
    return patch


def out(foreign: Foreign, **changes: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = foreign.model(**{**foreign.call, **changes}, return_dict=False)[0]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_new_patch_changes_no_bit(name: str) -> None:
    foreign = MODELS[name]()
    before = out(foreign)
    backbone = wrap_by_hand(foreign.model, **foreign.said)
    patched = attach(backbone, create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=8))
    assert torch.equal(out(foreign), before)
    patched.detach()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in foreign.model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_it_adds_what_the_paper_says_to_the_image_alone(name: str) -> None:
    foreign = MODELS[name]()
    patch = made(foreign)
    seen: dict[str, Tensor] = {}
    blocks = [f"{one}.{i}" for one in foreign.said["block_lists"] for i in range(len(getattr(foreign.model, one)))]
    vectors: list[Tensor] = []
    embedder = foreign.model.get_submodule(foreign.said["timestep_module"])
    handles = [embedder.register_forward_hook(lambda module, args, output: vectors.append(output))]

    def by_equation(index: int) -> Any:
        def add(module: Any, args: Any, kwargs: Any) -> Any:
            hidden = kwargs["hidden_states"].clone()
            i = torch.full((2, 1), float(index))  # [t; i] of Eq. 3
            logits = torch.cat([vectors[-1], i], dim=1) @ patch.gate.weight.T + patch.gate.bias  # type: ignore[union-attr, operator]
            weights = logits.softmax(1)[..., None]
            count = patch.num_prompts
            hidden[:, -count:] += weights * patch.prompts[index]
            seen[blocks[index]] = hidden
            return args, {**kwargs, "hidden_states": hidden}

        return add

    for index, block in enumerate(blocks):
        module = foreign.model.get_submodule(block)
        handles.append(module.register_forward_pre_hook(by_equation(index), with_kwargs=True))
    expected = out(foreign)
    for handle in handles:
        handle.remove()
    bare = out(foreign)
    attach(foreign.model, patch)
    assert len(seen) == len(blocks)
    torch.testing.assert_close(out(foreign), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(bare, expected, atol=1e-2)


def test_on_feature_maps_it_adds_what_the_family_adds() -> None:
    model = tiny_plain_unet()
    said = {"block_lists": ["down_blocks", "mid_block", "up_blocks"], "timestep_module": "time_embedding"}
    foreign = Foreign(model, said, {"sample": torch.randn(2, 3, 8, 8), "timestep": torch.tensor([3, 900])})
    patch = made(foreign)
    patched = attach(foreign.model, patch)
    by_hand = out(foreign)
    patched.detach()
    family = create_patch(as_backbone(model), PatchConfig(), codec=CodecRecord(), image_size=8, seed=1)
    family.load_state_dict(patch.state_dict())
    assert [tuple(one.shape) for one in family.prompts] == [tuple(one.shape) for one in patch.prompts]
    attach(as_backbone(model), family)
    assert torch.equal(out(foreign), by_hand)


@pytest.mark.parametrize("name", MODELS)
def test_a_file_is_attached_to_the_model_again(name: str, tmp_path: Path) -> None:
    foreign = MODELS[name]()
    patch = made(foreign)
    attach(foreign.model, patch)
    patched = out(foreign)
    save_patch(tmp_path / "patch.safetensors", patch)
    again = MODELS[name]()  # in another process, perhaps
    attach(again.model, load_patch(tmp_path / "patch.safetensors"))
    assert torch.equal(out(again), patched)
    both = copy.deepcopy(again.model)
    assert torch.equal(out(Foreign(both, {}, again.call)), patched)
    # its hooks go with the model into another process
    assert torch.equal(out(Foreign(pickle.loads(pickle.dumps(again.model)), {}, again.call)), patched)
    with pytest.raises(PatchError, match="trained on other weights"):
        attach(MODELS[name](seed=5).model, load_patch(tmp_path / "patch.safetensors"))


@pytest.mark.parametrize("name", MODELS)
def test_only_the_patch_learns(name: str) -> None:
    foreign = MODELS[name]()
    backbone = wrap_by_hand(foreign.model, **foreign.said)
    patch = create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=8)
    attach(backbone, patch)
    target = out(foreign) + 0.1
    optimizer = torch.optim.AdamW(patch.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (foreign.model(**foreign.call, return_dict=False)[0] - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach().item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(parameter.grad is None for parameter in foreign.model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_gate_weights_at_a_timestep_are_those_of_a_forward(name: str) -> None:
    foreign = MODELS[name]()
    patch = made(foreign)
    patched = attach(wrap_by_hand(foreign.model, **foreign.said), patch)
    vectors: list[Tensor] = []
    embedder = foreign.model.get_submodule(foreign.said["timestep_module"])
    handle = embedder.register_forward_hook(lambda module, args, output: vectors.append(output))
    out(foreign)
    handle.remove()
    torch.testing.assert_close(
        patched.gating(foreign.call["timestep"]).weights, patch(vectors[0]).weights, rtol=1e-5, atol=1e-6
    )


def test_another_size_and_shape() -> None:
    foreign = cogview3()
    patch = made(foreign)
    attach(foreign.model, patch)
    wide = cogview3(height=4, width=12)
    before = out(wide)
    assert not torch.allclose(out(Foreign(foreign.model, {}, wide.call)), before, atol=1e-2)
    tokens = flux2()
    attach(tokens.model, made(tokens))
    out(Foreign(tokens.model, {}, flux2(side=6).call))
    with pytest.raises(ValueError, match="15 tokens form no square"):
        out(tokens, hidden_states=torch.randn(2, 15, 8), img_ids=torch.zeros(15, 4))


def without(foreign: Foreign, name: str) -> dict[str, Any]:
    return {key: value for key, value in foreign.said.items() if key != name}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"block_lists": ["blocks"], "image_at": {}},
            "no list of blocks called blocks.*It has transformer_blocks, single",
        ),
        ({"timestep_module": "time"}, "no module called time.*time_guidance_embed.timestep_embedder"),
        ({"timestep_module": "pos_embed"}, "pos_embed gives tuple, not a vector"),
        ({"timestep_module": "norm_out.linear"}, "runs behind a block"),
        ({"image_at": {}}, "single_transformer_blocks.0 is given 21 tokens, and the image has 16.*--image-at"),
        ({"image_at": {"single": "last"}}, "--image-at single: it is none of the --block-lists"),
        ({"inputs": {}}, "the shape of hidden_states.*is not known.*--inputs hidden_states=…"),
        ({"inputs": {"hidden": (1, 2)}}, "is not called with hidden"),
        (
            {"inputs": {"hidden_states": (1, 16, 8)}},
            "does not run on hidden_states 1x16x8.*it takes hidden_states, enc",
        ),
        (
            {"inputs": {"hidden_states": (1, 15, 8), "img_ids": (15, 4), "txt_ids": (8, 4), "guidance": (1,)}},
            "15 tokens form no square",
        ),
    ],
)
def test_what_is_wrong_or_not_known_is_said(changes: dict[str, Any], message: str) -> None:
    foreign = flux2()
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        wrap_by_hand(foreign.model, **{**foreign.said, **changes})


def test_a_patch_of_another_model_is_refused() -> None:
    patch = made(flux2())
    with pytest.raises(PatchError, match="of a Flux2Transformer2DModel, and this is a CogView3Plus"):
        attach(cogview3().model, patch)


def test_it_makes_no_prediction_by_itself() -> None:
    foreign = cogview3()
    backbone = wrap_by_hand(foreign.model, **foreign.said)
    with pytest.raises(CheckpointError, match="call it yourself"):
        backbone(foreign.call["hidden_states"], foreign.call["timestep"])


@pytest.mark.parametrize(
    "changes",
    [
        {"latent": "image"},
        {"inputs": {"hidden_states": [1, 4, 8, -8]}},
        {"inputs": {"hidden_states": [1, 4, 1 << 20, 1 << 20]}},
        {"inputs": {"hidden_states": [1, 4]}},
        {"shapes": [[16, 16], [4, 4, 16]]},
        {"per_token": None},
        {"image_at": {"single": "last"}},
        {"block_lists": ["transformer_blocks", "no.such"]},
        {"block_lists": ["transformer_blocks.0"]},
        {"timestep_module": "no.such"},
        {"inputs": {"hidden_states": [1, 4, 8, 8], "sample": [1]}},
    ],
)
def test_a_forged_record_is_refused(changes: dict[str, Any]) -> None:
    foreign = cogview3()
    patch = made(foreign)
    assert patch.record is not None
    forged = patch.record.model_dump(mode="json")
    forged["backbone"]["by_hand"].update(changes)
    with pytest.raises(DMPError):
        attach_forged(foreign, patch, forged)


def attach_forged(foreign: Foreign, patch: Patch, forged: dict[str, Any]) -> None:
    patch.record = check_types(PatchRecord, forged, name="the header", kind=PatchError)
    attach(foreign.model, patch)
