"""How a rectified flow's levels are moved towards noise for larger images: level u becomes S u / (1 + (S - 1) u)."""

from __future__ import annotations

import math

from ..config import PipelineSampler


def linear_mu(own: PipelineSampler, tokens: int) -> float:
    """The shift's logarithm, linear in the number of image tokens (Esser et al. 2024, section 5.3.2, as published)."""
    low, high = own.base_image_seq_len or 256, own.max_image_seq_len or 4096
    base, top = own.base_shift or 0.5, own.max_shift or 1.15
    return base + (top - base) * (tokens - low) / (high - low)


def root_mu(own: PipelineSampler, tokens: int) -> float:
    """The shift itself, linear in the root of the number of image tokens, as CogView4's pipeline has it."""
    base, top = own.base_shift or 0.25, own.max_shift or 0.75
    return base + top * math.sqrt(tokens / (own.base_image_seq_len or 256))


def shift_of(own: PipelineSampler, mu: float) -> float:
    """The constant shift S that does what a dynamic one with ``mu`` does."""
    return mu if own.time_shift_type == "linear" else math.exp(mu)
