"""The two text encoders of Stable Diffusion XL, through the pipeline's own ``encode_prompt``.

Letters: B batch, S tokens of a caption, E width of a token's state (of both encoders together), P of a pooled one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import TextRecord
from ..errors import CheckpointError
from ..storage import read_json, reason_of
from .text_parts import TWO_CLASSES, digest_of, load_part


class TwoEncoders:
    """Both tokenizers and encoders. Not an ``nn.Module``, so that a backbone never owns their parameters."""

    def __init__(self, pipe: Any, record: TextRecord, *, zeros: bool) -> None:
        """``pipe`` is a StableDiffusionXLPipeline without U-Net and VAE; ``zeros``: the empty caption is all zeros."""
        self.pipe, self.record, self._zeros = pipe, record, zeros
        self.tokenizer, self.model = pipe.tokenizer, pipe.text_encoder
        self.length = int(pipe.tokenizer.model_max_length)
        self._is_checked = False  # whether the encoders were seen to give numbers

    @property
    def device(self) -> torch.device:
        """Where the encoders' weights are."""
        device: torch.device = self.model.device
        return device

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """``states`` (B, S, E), ``mask`` (B, S) that is all true, and ``pooled`` states (B, P), in float32.

        The empty caption is the null condition: zeros, where the pipeline says so (``force_zeros_for_empty_prompt``).
        """
        parts = []
        with torch.autocast(self.device.type, enabled=False):
            for caption in captions:
                parts.append(self._encode_one(caption))
        states, pooled = (torch.cat(own) for own in zip(*parts, strict=True))
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return {"states": states, "mask": mask, "pooled": pooled}

    def _encode_one(self, caption: str) -> tuple[Tensor, Tensor]:
        try:
            states, _, pooled, _ = self.pipe.encode_prompt(
                prompt=caption, device=self.device, do_classifier_free_guidance=False
            )
        except BaseException as error:  # a damaged tokenizer raises anything, and its Rust panics
            if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
                raise
            raise CheckpointError(
                f"the tokenizers and text encoders of {self.record.source} do not go together: {reason_of(error)}"
            ) from error
        # Of the first caption only: a GPU is waited for here.
        if not self._is_checked and not bool(states.isfinite().all() and pooled.isfinite().all()):
            raise CheckpointError(f"a text encoder of {self.record.source} gives states that are not finite")
        self._is_checked = True
        if not caption and self._zeros:
            return torch.zeros_like(states).float(), torch.zeros_like(pooled).float()
        return states.float(), pooled.float()


def load_two(folder: Path, *, device: str | torch.device = "cpu") -> TwoEncoders:
    """Load both tokenizers and text encoders of a pipeline of Stable Diffusion XL, in eval mode, in float32.

    Raises:
        CheckpointError: a part is missing or damaged.
        ConfigError: transformers is not installed.
    """
    from diffusers import StableDiffusionXLPipeline

    names = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
    loaded = {part: load_part(folder, TWO_CLASSES[part], tokenizer=own, part=part) for part, own in names.items()}
    models = {part: model.to(device).eval().requires_grad_(False) for part, (_, model) in loaded.items()}
    tokenizers = {names[part]: tokenizer for part, (tokenizer, _) in loaded.items()}
    index = read_json(folder / "model_index.json")
    zeros = index.get("force_zeros_for_empty_prompt", True) is not False
    pipe = StableDiffusionXLPipeline(
        vae=None,
        unet=None,
        scheduler=None,
        add_watermarker=False,
        force_zeros_for_empty_prompt=zeros,
        **models,
        **tokenizers,
    )
    digest = digest_of({f"{part}.": model for part, model in models.items()})
    return TwoEncoders(pipe, TextRecord(kind="sdxl", source=str(folder), digest=digest), zeros=zeros)
