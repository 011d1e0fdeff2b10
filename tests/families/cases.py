"""The families that dmp patches, each as a tiny random one, written as its users have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dmp_cli.backbones import Backbone, load_backbone
from tests.backbones.flow_pipelines import write_flux_pipeline, write_sd3_pipeline
from tests.backbones.joined_pipelines import (
    write_auraflow_pipeline,
    write_cogview4_pipeline,
    write_hunyuan_pipeline,
    write_lumina2_pipeline,
    write_qwen_pipeline,
    write_sana_pipeline,
    write_zimage_pipeline,
)
from tests.backbones.pipelines import tiny_pixart, tiny_vae, write_stock_pipeline, write_xl_pipeline
from tests.backbones.text_encoders import write_t5
from tests.builders import tiny_dit, write_meta_checkpoint


@dataclass(frozen=True)
class Case:
    """One family as users have it, and what is particular about it."""

    name: str  # in the table of docs/families.md
    write: Callable[[Path], Path]  # what is written is the folder or file that ``--backbone`` names
    options: tuple[str, ...] = ()  # of the command line, beside ``--backbone``
    hints: dict[str, Any] = field(default_factory=dict)  # the same for Python
    side: int | None = None  # of a sample, where it has none of its own
    pixels: int = 64  # side of an image of its own size
    blocks: str = ""  # which blocks prompts are added to
    core: str | None = None  # the denoiser in its pipeline; None: there is no pipeline
    guidance: float = 4.5
    samplers: tuple[str, ...] = ("ddpm", "ddim", "dpm++", "euler", "euler-a", "heun", "unipc", "pipeline")
    prepends: bool = True
    any_size: bool = True
    call: dict[str, Any] = field(default_factory=dict)  # of the stock pipeline
    texts: tuple[str, str] = ("a red fox", "two cats")  # captions of two images

    @property
    def reads_text(self) -> bool:
        """Whether its condition is a caption."""
        return self.core is not None

    def load(self, place: Path) -> Backbone:
        """The backbone that ``write`` wrote."""
        backbone = load_backbone(str(place), **self.hints)
        if self.side is not None:
            backbone.resize(self.side)
        return backbone

    def pipeline(self, place: Path) -> Any:
        """The stock pipeline of it, from its folder."""
        import diffusers

        pipe = diffusers.DiffusionPipeline.from_pretrained(place)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def conditions(self, backbone: Backbone, texts: tuple[str, ...] | None = None) -> torch.Tensor:
        """The conditions of two images, or of those with ``texts``."""
        texts = self.texts if texts is None else texts
        return backbone.captions.indices(texts) if backbone.takes_text else torch.arange(len(texts))


def _dit(folder: Path, **changes: Any) -> Path:
    return write_meta_checkpoint(folder / "tiny.pt", tiny_dit(**changes), wrap=None)


def _pixart(folder: Path, name: str) -> Path:
    import diffusers
    from transformers import AutoTokenizer, T5EncoderModel

    write_t5(folder)
    pipe = getattr(diffusers, name)(
        transformer=tiny_pixart(),
        vae=tiny_vae(),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=T5EncoderModel.from_pretrained(folder / "text_encoder"),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )
    pipe.save_pretrained(folder)
    return folder


def _in(writer: Callable[..., Any], **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        writer(folder, **options)
        return folder

    return write


_OF_DIT: dict[str, Any] = {
    "hints": {"num_classes": 4, "num_heads": 2},
    "options": ("--num-classes", "4", "--num-heads", "2"),
    "blocks": "all, in order",
    "any_size": False,
    "pixels": 8,
    "guidance": 1.5,
}
_OF_SIT = {"samplers": ("sde-euler", "ode-euler", "ode-heun")}
_OF_FLOW = {"core": "transformer", "samplers": ("flow-euler", "flow-heun", "pipeline")}


def _flow(objective: str) -> dict[str, Any]:
    return {
        **_OF_DIT,
        **_OF_SIT,
        "hints": {**_OF_DIT["hints"], "objective": objective},
        "options": (*_OF_DIT["options"], "--objective", objective),
    }


_BINNED = {"use_resolution_binning": False}
CASES = (
    Case("DiT", _dit, **{**_OF_DIT, "samplers": tuple(n for n in Case.samplers if n != "pipeline")}),
    Case("SiT", _dit, **_flow("sit")),
    Case("REPA", lambda folder: _dit(folder, learn_sigma=False), **_flow("repa")),
    Case("SD 1.5", _in(write_stock_pipeline), pixels=32, core="unet", blocks="down, mid, up", prepends=False),
    Case("SDXL", _in(write_xl_pipeline), core="unet", blocks="down, mid, up", prepends=False),
    Case(
        "PixArt-alpha",
        lambda folder: _pixart(folder, "PixArtAlphaPipeline"),
        core="transformer",
        blocks="all, in order",
        pixels=16,
        call=_BINNED,
    ),
    Case(
        "PixArt-Sigma",
        lambda folder: _pixart(folder, "PixArtSigmaPipeline"),
        core="transformer",
        blocks="all, in order",
        pixels=16,
        call=_BINNED,
    ),
    Case(
        "SD3",
        _in(write_sd3_pipeline, dual_attention_layers=(), qk_norm=None),
        blocks="all, in order",
        **_OF_FLOW,
    ),
    Case("SD3.5", _in(write_sd3_pipeline), blocks="all, in order", **_OF_FLOW),
    Case(
        "Flux.1 dev",
        _in(write_flux_pipeline),
        side=8,
        blocks="double-stream, then single-stream",
        prepends=False,
        **_OF_FLOW,
    ),
    Case(
        "Flux.1 schnell",
        _in(write_flux_pipeline, schnell=True),
        side=8,
        blocks="double-stream, then single-stream",
        prepends=False,
        guidance=1.0,
        **_OF_FLOW,
    ),
    Case(
        "AuraFlow",
        _in(write_auraflow_pipeline),
        blocks="double-stream, then single-stream",
        prepends=False,
        **_OF_FLOW,
    ),
    Case(
        "Lumina 2",
        _in(write_lumina2_pipeline),
        blocks="noise refiner, then layers",
        prepends=False,
        call={"cfg_normalization": False},
        **_OF_FLOW,
    ),
    Case(
        "Sana",
        _in(write_sana_pipeline),
        blocks="all, in order",
        pixels=128,
        prepends=False,
        call=_BINNED,
        **_OF_FLOW,
    ),
    Case(
        "Z-Image",
        _in(write_zimage_pipeline),
        side=8,
        blocks="noise refiner, then layers",
        prepends=False,
        call={"guidance_scale": 3.5},  # which it counts from 0
        **_OF_FLOW,
    ),
    Case(
        "Qwen-Image",
        _in(write_qwen_pipeline),
        side=8,
        blocks="all, in order",
        prepends=False,
        guidance=1.0,  # its pipeline rescales a guided prediction, always
        **_OF_FLOW,
    ),
    Case(
        "CogView4",
        _in(write_cogview4_pipeline),
        blocks="all, in order",
        prepends=False,
        texts=("a red fox", "two cats " * 20),  # of 16 tokens and of 48
        **_OF_FLOW,
    ),
    Case(
        "Hunyuan-DiT 1.1",
        _in(write_hunyuan_pipeline),
        blocks="all, in order",
        core="transformer",
        prepends=False,
        call=_BINNED,
    ),
    Case(
        "Hunyuan-DiT 1.2",
        _in(write_hunyuan_pipeline, style=False),
        blocks="all, in order",
        core="transformer",
        prepends=False,
        call=_BINNED,
    ),
)
