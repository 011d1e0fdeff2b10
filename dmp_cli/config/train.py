"""One training run: every option, its default and its range."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from .base import Dtype, Frozen

Method = Literal["dmp", "prompt-tuning", "lora", "full", "scratch"]
BalanceLosses = Literal["paper", "authors"]
RateSchedule = Literal["constant", "cosine"]


class TrainConfig(Frozen):
    """One training run. Defaults are the paper's recipe (Section 4; ``docs/method.md`` marks what it leaves open)."""

    method: Method = "dmp"
    data: Path
    steps: int = Field(30_000, ge=1)
    batch_size: int = Field(128, ge=1)  # global
    micro_batch_size: int | None = Field(None, ge=1)  # None: the whole batch at once
    lr: float = Field(1e-4, gt=0)  # prompts, adapter, or all weights for full and scratch
    gate_lr: float = Field(1e-3, gt=0)
    lora_rank: int = Field(16, ge=1)  # alpha is the rank too
    lora_targets: tuple[str, ...] | None = None  # linear layers of every block; None: its attention and MLP layers
    weight_decay: float = Field(0.0, ge=0)
    lr_schedule: RateSchedule = "constant"
    warmup: int = Field(0, ge=0)  # steps
    balance_importance: float = Field(1.0, ge=0)
    balance_load: float = Field(1.0, ge=0)
    balance_losses: BalanceLosses = "paper"  # authors: as their code computes them, for comparison
    gate_noise: bool = False  # the authors' noisy logits in the mixture while it trains
    ema: float = Field(0.0, ge=0, lt=1)  # decay; 0: none
    class_dropout: float = Field(0.1, ge=0, le=1)  # used only where the backbone has a null condition
    flip: bool = True
    seed: int = Field(0, ge=0)
    dtype: Dtype = "fp32"
    log_every: int = Field(100, ge=1)
    save_every: int = Field(5000, ge=1)
    sample_every: int = Field(5000, ge=0)  # 0: never
    keep: int = Field(3, ge=1)  # newest checkpoints kept
    workers: int = Field(0, ge=0)
    max_bad: int = Field(100, ge=0)  # unreadable images allowed before the run stops
    max_bad_steps: int = Field(20, ge=0)  # steps in a row that may be skipped for a loss that is not finite
    latent_store: bool | None = None  # None: for a VAE, and for pixels that do not fit in memory
    store_dir: Path | None = None  # the store's folder; None: one in $DMP_HOME/latents
    half_frozen: bool = True  # with bf16 and fp16, keep frozen weights in it: the same numbers
    gradient_checkpointing: bool = False  # compute each block again in the backward, instead of keeping it
    compile: bool = False  # by torch.compile
    shard_backbone: bool = False  # over the processes (FSDP2), for a backbone that does not fit one device

    @model_validator(mode="after")
    def _gate_options_have_a_gate(self) -> TrainConfig:
        if self.gate_noise and self.method != "dmp":
            raise ValueError(f"--gate-noise is noise on a gate's logits, and --method {self.method} has no gate")
        return self

    @model_validator(mode="after")
    def _only_frozen_weights_are_spread(self) -> TrainConfig:
        if self.shard_backbone and self.method not in ("dmp", "prompt-tuning"):
            raise ValueError(f"--shard-backbone is for a frozen backbone, and --method {self.method} changes it")
        return self

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> TrainConfig:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"--micro-batch-size {self.micro_batch_size} does not divide --batch-size {self.batch_size}"
            )
        return self
