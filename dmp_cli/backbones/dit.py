"""DiT (Peebles and Xie 2022) of any size, with the arithmetic and the key names of the public checkpoints.

Letters: B batch, N tokens, D width, C channels, P patch side in latent pixels, S latent side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import GateInput
from ..runtime import randomness
from .base import Backbone, Block
from .dit_layers import ClassEmbedder, Conditioning, DiTBlock, FinalLayer, PatchEmbedder, TimestepEmbedder
from .dit_sizes import DiTConfig


class DiT(Backbone):
    """The DiT denoiser. Its ``state_dict`` has the names of the public checkpoints, ``pos_embed`` included."""

    family = "dit"
    lora_targets = ("qkv", "proj", "fc1", "fc2")
    scaled_layers = ("attn.proj", "mlp.fc2")
    class_table = "y_embedder.embedding_table.weight"

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
        """Put the pixels of each patch (B, N, P*P*C) in their places: (B, C, S, S)."""
        grid, patch = self.config.grid, self.config.patch_size
        x = x.view(-1, grid, grid, patch, patch, self.out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, grid * patch, grid * patch)  # (B, C, S, S)

    def null_condition(self, count: int) -> Tensor:
        if not self.has_null:
            raise ValueError("this DiT has no null row in its class table")
        return torch.full((count,), self.num_classes, dtype=torch.int64, device=self.device)

    def derived_tensors(self) -> set[str]:
        # The sizes determine the table of positions. A table that someone changed counts as a weight like any other.
        same = torch.allclose(self.pos_embed[0].float().cpu(), positions(self.config).cpu(), atol=1e-5)
        return {"pos_embed"} if same else set()

    def initialise(self, *, seed: int) -> None:
        """Draw fresh weights for training from scratch (DiT, Section 3.2).

        Linear layers are Xavier uniform, embedders normal; biases, the modulation and the output layer are zero.
        """
        source = randomness.torch_generator("backbone", seed=seed)
        for name, parameter in self.named_parameters():
            if name == "pos_embed":
                continue
            fresh = torch.zeros(
                parameter.shape, device="cpu"
            )  # drawn on the CPU: every device starts from the same weights
            if name.endswith("bias") or "adaLN_modulation" in name or name.startswith("final_layer"):
                pass
            elif name.startswith(("t_embedder", "y_embedder")):
                nn.init.normal_(fresh, std=0.02, generator=source)
            else:
                nn.init.xavier_uniform_(fresh.flatten(1), generator=source)
            parameter.data.copy_(fresh)


def positions(config: DiTConfig) -> Tensor:
    """Fixed 2-D sine and cosine positions (N, D): the column's features in the first half, the row's in the second."""
    row, column = np.divmod(np.arange(config.grid**2), config.grid)
    table = np.concatenate([_sin_cos(column, config.hidden_size // 2), _sin_cos(row, config.hidden_size // 2)], axis=1)
    return torch.as_tensor(table, dtype=torch.float32)  # from_numpy would ignore the default device


def _sin_cos(place: np.ndarray, width: int) -> np.ndarray:
    """Sine and cosine features (N, width) of positions (N,) along one axis."""
    # sin(p w_k), cos(p w_k) with w_k = 10000^(-2k / width), in float64
    angles = place[:, None] / 10_000.0 ** (np.arange(width // 2) / (width / 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # (N, width)
