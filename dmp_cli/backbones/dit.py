"""DiT (Peebles and Xie 2022): the public checkpoints' key names and arithmetic, any size, attention through SDPA.

Letters: B batch, N tokens, D width, H heads, C channels, P patch side in latent pixels, S latent side.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from ..config import Frozen, GateInput
from ..runtime import randomness
from .base import Backbone, Block

_SIZES = {"s": (12, 384, 6), "b": (12, 768, 12), "l": (24, 1024, 16), "xl": (28, 1152, 16)}  # depth, D, heads
_HEADS = {width: heads for _, width, heads in _SIZES.values()}
_NORM_EPS = 1e-6
_FREQUENCIES = 256  # sin-cos features of a timestep


class DiTConfig(Frozen):
    """The sizes of a DiT."""

    input_size: int = Field(32, ge=1)  # S: side of the latent (or of the image in pixel space)
    patch_size: int = Field(2, ge=1)
    in_channels: int = Field(4, ge=1)
    hidden_size: int = Field(1152, ge=4)
    depth: int = Field(28, ge=1)
    num_heads: int = Field(16, ge=1)
    mlp_size: int = Field(4608, ge=1)
    num_classes: int = Field(1000, ge=0)  # 0: no class table at all
    null_row: bool = True  # one row more in the class table, for "no class"
    learn_sigma: bool = True
    freq_shift: float = 0.0  # diffusers trains with 1; the public checkpoints with 0
    mlp_norm_eps: float = _NORM_EPS  # diffusers trains with its config's norm_eps

    @model_validator(mode="after")
    def _divisible(self) -> DiTConfig:
        if self.input_size % self.patch_size:
            raise ValueError(f"patch size {self.patch_size} does not divide the input size {self.input_size}")
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ValueError(f"width {self.hidden_size} must be a multiple of 4 and of the {self.num_heads} heads")
        if self.null_row and not self.num_classes:
            raise ValueError("a null row needs classes")
        return self

    @property
    def grid(self) -> int:
        """Tokens along one side."""
        return self.input_size // self.patch_size

    @property
    def class_rows(self) -> int:
        """Rows of the class table."""
        return self.num_classes + int(self.null_row)


def named_config(name: str) -> DiTConfig | None:
    """The sizes of ``dit-b2``, ``DiT-XL/8``, …; None for any other name. Classes and input size are the defaults."""
    match = re.fullmatch(r"dit-(s|b|l|xl)/?(2|4|8)", name.lower())
    if match is None:
        return None
    depth, width, heads = _SIZES[match[1]]
    return DiTConfig(depth=depth, hidden_size=width, num_heads=heads, mlp_size=4 * width, patch_size=int(match[2]))


def standard_heads(width: int) -> int | None:
    """The head count of a width that the public sizes use; None for an unusual width, where shapes cannot tell."""
    return _HEADS.get(width)


class TimestepEmbedder(nn.Module):
    """Timesteps (B,) -> (B, D): cos then sin features, then two linear layers; always in float32."""

    def __init__(self, width: int, *, freq_shift: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.freq_shift = freq_shift

    def features(self, timesteps: Tensor) -> Tensor:
        # cos(t w_k), sin(t w_k) with w_k = 10000^(-k / (half - shift))
        half = _FREQUENCIES // 2
        k = torch.arange(half, dtype=torch.float32, device=timesteps.device)
        # in this order of operations the frequencies are those of Meta's code and of diffusers to the last bit
        angles = timesteps[:, None].float() * torch.exp(-math.log(10_000) * k / (half - self.freq_shift))  # (B, half)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)  # (B, 256)

    def forward(self, timesteps: Tensor) -> Tensor:
        with torch.autocast(timesteps.device.type, enabled=False):
            return self.mlp(self.features(timesteps).to(next(self.mlp.parameters()).dtype))


class ClassEmbedder(nn.Module):
    """Class indices (B,) -> (B, D); the last row is the null class where there is one."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)


class Conditioning(nn.Module):
    """c = t + y, (B, D). A module of its own, so that a gate can read its output."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return t + y


class PatchEmbedder(nn.Module):
    """Images (B, C, S, S) -> tokens (B, N, D) through one strided convolution."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        # Made contiguous once: every block and every added mixture then runs on contiguous memory.
        return self.proj(x).flatten(2).transpose(1, 2).contiguous()  # (B, N, D)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, N, D/H) each
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two linear layers around a tanh GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def modulate(x: Tensor, *, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift, with (B, D) vectors over tokens (B, N, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


class DiTBlock(nn.Module):
    """Attention and MLP, each modulated and gated by the condition (adaLN-Zero)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=_NORM_EPS)
        self.attn = Attention(width, config.num_heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=config.mlp_norm_eps)
        self.mlp = Mlp(width, config.mlp_size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, dim=1)  # (B, D) each
        x = x + gate_a[:, None] * self.attn(modulate(self.norm1(x), shift=shift_a, scale=scale_a))
        return x + gate_m[:, None] * self.mlp(modulate(self.norm2(x), shift=shift_m, scale=scale_m))


class FinalLayer(nn.Module):
    """Tokens (B, N, D) -> pixels of each patch (B, N, P*P*C)."""

    def __init__(self, config: DiTConfig, out_channels: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=_NORM_EPS)
        self.linear = nn.Linear(width, config.patch_size**2 * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift=shift, scale=scale))


class DiT(Backbone):
    """The denoiser. ``state_dict`` has the public checkpoints' names, ``pos_embed`` included."""

    family = "dit"
    lora_targets = ("qkv", "proj", "fc1", "fc2")

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.learns_sigma = config.learn_sigma
        self.num_classes = config.num_classes
        self.has_null = config.null_row
        self.gate_width = config.hidden_size
        self.sample_shape = (config.in_channels, config.input_size, config.input_size)
        self.out_channels = config.in_channels * (2 if config.learn_sigma else 1)

        self.x_embedder = PatchEmbedder(config)
        self.t_embedder = TimestepEmbedder(config.hidden_size, freq_shift=config.freq_shift)
        rows = config.class_rows
        self.y_embedder = ClassEmbedder(rows, config.hidden_size) if rows else None
        self.conditioning = Conditioning()
        self.pos_embed = nn.Parameter(positions(config)[None], requires_grad=False)  # (1, N, D)
        self.blocks = nn.ModuleList([DiTBlock(config) for _ in range(config.depth)])
        self.final_layer = FinalLayer(config, self.out_channels)

    @property
    def sizes(self) -> dict[str, Any]:
        return self.config.model_dump()

    def list_blocks(self) -> list[Block]:
        shape = (self.config.grid**2, self.config.hidden_size)
        return [Block(f"blocks.{index}", block, shape) for index, block in enumerate(self.blocks)]

    @property
    def gate_sources(self) -> dict[GateInput, nn.Module]:
        sources: dict[GateInput, nn.Module] = {"timestep": self.t_embedder}
        return sources | ({"conditioning": self.conditioning} if self.y_embedder is not None else {})

    def gate_vector(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        vector = self.t_embedder(timesteps)  # (B, D)
        if condition is None or self.y_embedder is None:
            return vector
        return self.conditioning(vector, self.y_embedder(condition))

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        c = self.t_embedder(timesteps)  # (B, D)
        if self.y_embedder is not None:
            if condition is None:
                raise ValueError(f"this DiT takes a class index in 0..{self.config.class_rows - 1} for every image")
            c = self.conditioning(c, self.y_embedder(condition))
        x = self.x_embedder(x) + self.pos_embed  # (B, N, D)
        for block in self.blocks:
            x = block(x, c)
        return self._unpatchify(self.final_layer(x, c))

    def _unpatchify(self, x: Tensor) -> Tensor:
        grid, patch = self.config.grid, self.config.patch_size
        x = x.view(-1, grid, grid, patch, patch, self.out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, grid * patch, grid * patch)  # (B, C, S, S)

    def null_condition(self, count: int) -> Tensor:
        if not self.has_null:
            raise ValueError("this DiT has no null row in its class table")
        return torch.full((count,), self.num_classes, dtype=torch.int64, device=self.device)

    def derived_tensors(self) -> set[str]:
        # Positions are a function of the sizes; a table that was changed by hand is a weight like any other.
        same = torch.allclose(self.pos_embed[0].float().cpu(), positions(self.config).cpu(), atol=1e-5)
        return {"pos_embed"} if same else set()

    def initialise(self, *, seed: int) -> None:
        """Fresh weights for training from scratch: Xavier layers, zero modulation and output (DiT, Section 3.2)."""
        source = randomness.torch_generator("backbone", seed=seed)
        for name, parameter in self.named_parameters():
            if name == "pos_embed":
                continue
            fresh = torch.zeros(parameter.shape, device="cpu")  # drawn on the CPU, so that every device starts alike
            if name.endswith("bias") or "adaLN_modulation" in name or name.startswith("final_layer"):
                pass
            elif name.startswith(("t_embedder", "y_embedder")):
                nn.init.normal_(fresh, std=0.02, generator=source)
            else:
                nn.init.xavier_uniform_(fresh.flatten(1), generator=source)
            parameter.data.copy_(fresh)


def positions(config: DiTConfig) -> Tensor:
    """Fixed 2-D sin-cos positions (N, D): the column's features in the first half, the row's in the second."""
    row, column = np.divmod(np.arange(config.grid**2), config.grid)
    table = np.concatenate([_sin_cos(column, config.hidden_size // 2), _sin_cos(row, config.hidden_size // 2)], axis=1)
    return torch.as_tensor(table, dtype=torch.float32)  # unlike from_numpy, on the device a DiT is built on


def _sin_cos(place: np.ndarray, width: int) -> np.ndarray:
    # sin(p w_k), cos(p w_k) with w_k = 10000^(-2k / width), in float64
    angles = place[:, None] / 10_000.0 ** (np.arange(width // 2) / (width / 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # (N, width)
