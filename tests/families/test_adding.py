"""docs/adding-a-family.md, step by step: a model that no family names is refused, then added as the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from dmp_cli import attach, load_backbone, load_patch
from dmp_cli.backbones import as_backbone, families
from dmp_cli.errors import CheckpointError, ConfigError
from tests.backbones.pipelines import randomise, write_captioned, write_pipeline
from tests.builders import filled_patch, zero_patch
from tests.commands.conftest import Run, run  # noqa: F401

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-family.md").read_text()


class Block(nn.Module):
    """Adds to an image's tokens what an MLP makes of them, the caption's mean and the time; returns (text, image)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor) -> tuple[Tensor, Tensor]:
        context = encoder_hidden_states.mean(1, keepdim=True) + temb[:, None]
        seen = hidden_states + hidden_states.mean(1, keepdim=True) + context
        return encoder_hidden_states, hidden_states + torch.tanh(self.mix(seen))


class ToyTransformer2DModel(ModelMixin, ConfigMixin):
    """Two lists of blocks over tokens of 2 x 2 latents, as a newer diffusers might have it."""

    @register_to_config
    def __init__(
        self,
        sample_size: int = 8,
        patch_size: int = 2,
        in_channels: int = 4,
        out_channels: int | None = None,
        num_joint: int = 2,
        num_single: int = 1,
        num_attention_heads: int = 2,
        attention_head_dim: int = 8,
        caption_channels: int = 32,
    ) -> None:
        super().__init__()
        width = num_attention_heads * attention_head_dim
        self.time_proj = Timesteps(16, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embed = TimestepEmbedding(16, width)
        self.patches = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)
        self.caption = nn.Linear(caption_channels, width)
        self.joint_blocks = nn.ModuleList(Block(width) for _ in range(num_joint))
        self.single_blocks = nn.ModuleList(Block(width) for _ in range(num_single))
        self.out = nn.ConvTranspose2d(width, in_channels, patch_size, stride=patch_size)

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, timestep: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        temb = self.time_embed(self.time_proj(timestep))
        maps = self.patches(hidden_states)
        image, text = maps.flatten(2).transpose(1, 2), self.caption(encoder_hidden_states)
        for block in [*self.joint_blocks, *self.single_blocks]:
            text, image = block(hidden_states=image, encoder_hidden_states=text, temb=temb)
        return (self.out(image.transpose(1, 2).reshape(maps.shape)),)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A pipeline of it, in a diffusers that has the class. What a test registers is forgotten afterwards."""
    toy = randomise(ToyTransformer2DModel(), seed=0)
    with (
        mock.patch.dict(families.FAMILIES),
        mock.patch.object(diffusers, "ToyTransformer2DModel", toy.__class__, create=True),
    ):
        noise = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
        write_pipeline(tmp_path / "toy", toy, text="t5", name="ToyPipeline", **noise)
        yield tmp_path / "toy"


def code(name: str) -> str:
    """The block of the page under this mark."""
    (found,) = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def add() -> type[Any]:
    """Add the family as the page says; its class."""
    names: dict[str, Any] = {"__name__": "dmp_cli.backbones.toy", "__package__": "dmp_cli.backbones"}
    exec(code("the class"), names)
    exec(code("the registration"), names)
    toy: type[Any] = names["Toy"]
    return toy


def test_until_it_is_added_it_is_refused(place: Path) -> None:
    with pytest.raises(CheckpointError) as refused:
        load_backbone(str(place))
    said = f"{refused.value}\n  {refused.value.hint}".replace(str(place), "model")
    assert said.splitlines()[0] in PAGE
    assert f"  {refused.value.hint}" in PAGE
    with pytest.raises(CheckpointError, match="is not a backbone") as refused:
        as_backbone(ToyTransformer2DModel())
    assert "docs/families.md" in str(refused.value.hint)


def test_added_as_the_page_says_it_is_patched_trained_and_sampled(
    place: Path,
    run: Run,  # noqa: F811
    tmp_path: Path,
) -> None:
    add()
    backbone = load_backbone(str(place))
    assert [block.name for block in backbone.list_blocks()] == ["joint_blocks.0", "joint_blocks.1", "single_blocks.0"]
    x, levels = torch.randn(2, 4, 8, 8), torch.tensor([0.25, 0.8])
    captions = backbone.captions.indices(["a red fox", "two cats"])
    with torch.no_grad():
        bare = backbone(x, levels, captions)
        by_hand = backbone.core(x, backbone.captions.look_up(captions)["states"], levels * 1000)[0]
        assert torch.equal(bare, by_hand)
        patched = attach(backbone, zero_patch(backbone))
        assert torch.equal(patched(x, levels, captions), bare)
        patched.detach()
        patched = attach(backbone, filled_patch(backbone))
        assert not torch.equal(patched(x, levels, captions), bare)
        patched.detach()
        assert torch.equal(backbone(x, levels, captions), bare)

    write_captioned(tmp_path / "photos", size=16)
    how = ("--batch-size", 2, "--lr", 0.5, "--workers", 0, "--device", "cpu", "-q")
    run("train", "--backbone", place, "--data", "photos", "--steps", 2, *how, "-o", "run")
    patch = load_patch(tmp_path / "run/patch.safetensors")
    assert patch.record is not None
    assert (patch.record.backbone.family, patch.record.schedule.flow) == ("toy", "rectified")
    assert any(bool((prompt != 0).any()) for prompt in patch.prompts)
    draw = ("sample", "--patch", "run/patch.safetensors", "--prompt", "a red fox", "-n", 2, "--steps", 2, "-q")
    run(*draw, "-o", "patched")
    run(*draw, "--no-patch", "-o", "bare")
    images = [(tmp_path / name / "000000.png").read_bytes() for name in ("patched", "bare")]
    assert images[0] != images[1]


def test_a_family_that_is_not_whole_or_known_already_is_refused(place: Path) -> None:
    toy = add()
    with pytest.raises(ConfigError, match="a family toy is known already"):
        families.register_family(toy)
    with pytest.raises(ConfigError, match="ToyTransformer2DModel belongs to the family toy already"):
        families.register_family(type("Other", (toy,), {"family": "other"}))
    bare = type("Bare", (families.Transformer,), {"family": "bare", "classes": ("BareModel",)})
    with pytest.raises(ConfigError, match="Bare does not say its embedder_at, features_at") as refused:
        families.register_family(bare)
    assert "docs/adding-a-family.md" in str(refused.value.hint)
    assert "bare" not in families.FAMILIES
    flow = type("Flow", (toy,), {"family": "flow", "classes": ("FlowModel",), "flow_sampler": None})
    with pytest.raises(ConfigError, match="Flow does not say its flow_sampler"):
        families.register_family(flow)


def test_the_page_names_every_attribute() -> None:
    told = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    declared = set(vars(families.Transformer)["__annotations__"])
    assert declared <= told
    assert all(hasattr(families.Transformer, name) or name in families._NEEDED for name in told)
