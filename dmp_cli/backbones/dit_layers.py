"""The layers of a DiT: embedders, attention, MLP, block and output layer (Peebles and Xie 2022, Section 3.2).

Attribute names are those of the public checkpoints. Letters: B batch, N tokens, D width, H heads, C channels,
P patch side in latent pixels, S latent side.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dit_sizes import NORM_EPS, DiTConfig

_FREQUENCIES = 256  # cos and sin features of a timestep


class TimestepEmbedder(nn.Module):
    """Embeds timesteps (B,) as (B, D): cosine and sine features, then two linear layers. Always in float32."""

    def __init__(self, width: int, *, freq_shift: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.freq_shift = freq_shift

    def features(self, timesteps: Tensor) -> Tensor:
        """Cosine and sine features (B, 256) of timesteps (B,)."""
        # cos(t w_k), sin(t w_k) with w_k = 10000^(-k / (half - shift))
        half = _FREQUENCIES // 2
        k = torch.arange(half, dtype=torch.float32, device=timesteps.device)
        # This order of operations gives the frequencies of Meta's code and of diffusers to the last bit.
        angles = timesteps[:, None].float() * torch.exp(-math.log(10_000) * k / (half - self.freq_shift))  # (B, half)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)  # (B, 256)

    def forward(self, timesteps: Tensor) -> Tensor:
        with torch.autocast(timesteps.device.type, enabled=False):
            return self.mlp(self.features(timesteps).to(next(self.mlp.parameters()).dtype))


class ClassEmbedder(nn.Module):
    """Embeds class indices (B,) as (B, D). If there is a null class, it is the last row of the table."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        empty = torch.empty(rows, width)
        # To draw first weights on meta, torch imports its whole compiler: a second and about 80 MB.
        self.embedding_table = nn.Embedding(rows, width, _weight=empty if empty.is_meta else None)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)


class Conditioning(nn.Module):
    """Adds the timestep and class embeddings: c = t + y, (B, D). It is a module so that a hook can read its output."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return t + y


class PatchEmbedder(nn.Module):
    """Embeds the patches of images (B, C, S, S) as tokens (B, N, D) with one strided convolution."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        # Contiguous from here on, so that every block and every added mixture reads contiguous memory.
        return self.proj(x).flatten(2).transpose(1, 2).contiguous()  # (B, N, D)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, D), through PyTorch's scaled_dot_product_attention."""

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
    """Two linear layers with a GELU between them, in its tanh approximation."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def modulate(x: Tensor, *, shift: Tensor, scale: Tensor) -> Tensor:
    """Modulate tokens: x * (1 + scale) + shift, with x (B, N, D), scale and shift (B, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


class DiTBlock(nn.Module):
    """One block: attention and MLP, each modulated and scaled by the condition c (adaLN-Zero)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=NORM_EPS)
        self.attn = Attention(width, config.num_heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=config.mlp_norm_eps)
        self.mlp = Mlp(width, config.mlp_size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, dim=1)  # (B, D) each
        x = x + gate_a[:, None] * self.attn(modulate(self.norm1(x), shift=shift_a, scale=scale_a))
        return x + gate_m[:, None] * self.mlp(modulate(self.norm2(x), shift=shift_m, scale=scale_m))


class FinalLayer(nn.Module):
    """The output layer: maps tokens (B, N, D) to the pixels of each patch, (B, N, P*P*C)."""

    def __init__(self, config: DiTConfig, out_channels: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=NORM_EPS)
        self.linear = nn.Linear(width, config.patch_size**2 * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift=shift, scale=scale))
