"""The training methods: what each learns, at which rate, and its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import Backbone, save_backbone
from ..config import PatchConfig, TrainConfig, level_rule
from ..diffusion import check_weight
from ..errors import ConfigError
from ..latents import Codec, image_size
from ..patching import (
    Adapter,
    LoadNoise,
    PatchedBackbone,
    Tuned,
    attach,
    create_adapter,
    create_patch,
    create_tuned,
    save_adapter,
    save_patch,
    save_tuned,
)
from .conditions import withhold_captions

_PROMPT_OPTIONS = {"depth", "position", "num_prompts", "init"}  # options of the prompts, which need no gate


@dataclass
class Trainee:
    """What is trained: how it is called, which of its parameters are learnt, and how it is written."""

    denoiser: nn.Module  # called (x, timesteps, condition)
    learnt: dict[str, nn.Parameter]  # the parameters that its file holds, by name
    groups: list[dict[str, Any]]  # parameter groups of AdamW: "params" and "rate"
    backbone: Backbone
    codec: Codec
    load_noise: LoadNoise | None  # helps to train a gate; not part of the file
    adapter: Adapter | None = None  # inside the backbone; only for LoRA and DoRA
    tuned: Tuned | None = None  # in place of the backbone's own weights; only for BitFit and DiffFit

    @property
    def is_frozen(self) -> bool:
        """Whether the backbone's own weights must not change: all but those that are learnt in their places."""
        return bool(self.adapter or self.tuned) or isinstance(self.denoiser, PatchedBackbone)

    @property
    def num_learnt(self) -> int:
        """Number of all learnt parameters."""
        return sum(parameter.numel() for parameter in self.learnt.values())

    @property
    def file_stem(self) -> str:
        """The name of the learnt file in a run folder, without ``file_suffix``."""
        if self.adapter is not None:
            return "adapter"
        if self.tuned is not None:
            return "tuned"
        return "patch" if isinstance(self.denoiser, PatchedBackbone) else "backbone"

    @property
    def file_suffix(self) -> str:
        """``.safetensors``, or nothing for an adapter, which is a folder."""
        return "" if self.adapter is not None else ".safetensors"

    @property
    def exact_layers(self) -> list[nn.Module]:
        """Frozen layers whose weights keep their precision: DoRA takes the lengths of the rows of what it adapts."""
        if self.adapter is None or not self.adapter.is_dora:
            return []
        return [self.backbone.core.get_submodule(f"{name}.base_layer") for name in self.adapter.layers]

    def move(self, device: torch.device) -> None:
        """Move the denoiser, the codec and ``load_noise`` to ``device``."""
        self.denoiser.to(device)
        self.codec.to(device)
        if self.load_noise is not None:
            self.load_noise.to(device)

    def write(self, path: Path, values: dict[str, Tensor], training: dict[str, Any]) -> None:
        """Write the learnt file to ``path``, with ``values`` in place of the live parameters.

        ``values`` are the trained values or their average; ``training`` is the record of the training to store with
        them.
        """
        with self.holding(values):
            if self.adapter is not None:
                save_adapter(path, self.adapter, training=training)
            elif self.tuned is not None:
                size = image_size(self.codec, self.backbone)
                save_tuned(path, self.tuned, codec=self.codec.record, image_size=size, training=training)
            elif isinstance(self.denoiser, PatchedBackbone):
                patch = self.denoiser.patch
                assert patch.record is not None
                patch.record = patch.record.model_copy(update={"training": training})
                save_patch(path, patch)
            else:
                save_backbone(path, self.backbone, codec=self.codec.record, training=training)

    def holding(self, values: dict[str, Tensor]) -> _Replaced:
        """Context in which the learnt parameters have ``values``. Afterwards they have their own values again."""
        return _Replaced(self.learnt, values)


class _Replaced:
    """Context that gives parameters other values for a while. It exchanges their storage, so nothing is copied."""

    def __init__(self, parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
        self.parameters, self.values = parameters, values

    def __enter__(self) -> None:
        self.before = {name: parameter.data for name, parameter in self.parameters.items()}
        values = {name: self.values[name] for name in self.parameters}  # KeyError comes before any change
        for name, parameter in self.parameters.items():
            parameter.data = values[name]

    def __exit__(self, *problem: object) -> None:
        for name, parameter in self.parameters.items():
            parameter.data = self.before[name]


def prepare(
    config: TrainConfig, *, backbone: Backbone, codec: Codec, patch_config: PatchConfig | None = None
) -> Trainee:
    """Make ``backbone`` ready to be trained by ``config.method``.

    Raises:
        ConfigError: ``patch_config`` leaves nothing to train, or is given to a method that has no patch; for LoRA and
            DoRA, no layer has one of the target names, or peft is not installed; the options of noise levels or
            ``shard_backbone`` do not fit the backbone.
    """
    level_rule(config, backbone.level_rule)
    check_weight(config.loss_weight, backbone.schedule)
    if config.shard_backbone and backbone.one_length:  # one process would wait for the others for ever
        raise ConfigError(
            f"--shard-backbone: a {backbone.family} takes as many forwards as its captions have lengths, and spread "
            "weights need all processes to take the same",
            hint="Leave it out; --quantize saves memory too.",
        )
    withhold_captions(config, backbone)
    if config.method not in ("dmp", "prompt-tuning"):
        if patch_config is not None and patch_config != PatchConfig():
            raise ConfigError(f"--method {config.method} has no patch, so options such as --gate do not apply to it")
        return _WITHOUT_PATCH.get(config.method, _prepare_backbone)(config, backbone, codec)
    patch_config = patch_config or PatchConfig()
    if config.method == "prompt-tuning":
        if patch_config.experts is not None:
            raise ConfigError(
                f"--method prompt-tuning has prompts alone, so --experts {patch_config.experts} is no part of it"
            )
        given = patch_config.model_dump(exclude_defaults=True, exclude=_PROMPT_OPTIONS)
        if given not in ({}, {"gate": "none"}):
            raise ConfigError(
                "--method prompt-tuning has no gate (paper, Eq. 2)", hint="Use --method dmp --gate constant."
            )
        patch_config = PatchConfig(gate="none", **patch_config.model_dump(include=_PROMPT_OPTIONS, exclude_unset=True))
    return _prepare_patch(config, backbone, codec, patch_config)


def check_noise(config: TrainConfig, patch_config: PatchConfig) -> None:
    """Raise ConfigError if ``config`` asks for noise on a gate's logits and the gate has no logits."""
    if config.gate_noise and patch_config.gate in ("constant", "none"):
        raise ConfigError(f"--gate-noise adds noise to a gate's logits, and --gate {patch_config.gate} has none")


def _prepare_patch(config: TrainConfig, backbone: Backbone, codec: Codec, patch_config: PatchConfig) -> Trainee:
    size = image_size(codec, backbone)
    patch = create_patch(backbone, patch_config, codec=codec.record, image_size=size, seed=config.seed)
    if not patch.hidden_shapes:
        raise ConfigError("--depth 0 leaves nothing to train", hint="Give the number of blocks that get prompts.")
    check_noise(config, patch_config)
    patched = attach(backbone, patch)
    groups: list[dict[str, Any]] = [{"params": [*patch.prompts, *patch.experts.parameters()], "rate": config.lr}]
    load_noise = None
    if patch.gate is not None:
        gate = list(patch.gate.parameters())
        if config.gate_noise or (config.balance_load and config.balance_losses == "paper"):
            load_noise = LoadNoise(gate_width=patch.gate_width, num_prompts=patch.gate_outputs).to(backbone.device)
            gate += list(load_noise.parameters())
        groups.append({"params": gate, "rate": config.gate_lr})
    learnt = dict(patch.named_parameters())
    return Trainee(patched, learnt, groups, backbone, codec, load_noise)


def _prepare_adapter(config: TrainConfig, backbone: Backbone, codec: Codec) -> Trainee:
    how: dict[str, Any] = {"rank": config.lora_rank, "targets": config.lora_targets, "is_dora": config.method == "dora"}
    adapter = create_adapter(backbone, seed=config.seed, **how)
    groups = [{"params": list(adapter.parameters.values()), "rate": config.lr}]
    return Trainee(backbone, adapter.parameters, groups, backbone, codec, None, adapter)


def _prepare_tuned(config: TrainConfig, backbone: Backbone, codec: Codec) -> Trainee:
    assert config.method in ("bitfit", "difffit")
    tuned = create_tuned(backbone, config.method)
    groups = [{"params": list(tuned.parameters.values()), "rate": config.lr}]
    return Trainee(backbone, tuned.parameters, groups, backbone, codec, None, tuned=tuned)


def _prepare_backbone(config: TrainConfig, backbone: Backbone, codec: Codec) -> Trainee:
    fixed = backbone.derived_tensors()
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name not in fixed)
    learnt = {name: parameter for name, parameter in backbone.named_parameters() if name not in fixed}
    backbone.eval()  # no layer of it behaves differently in training; class dropout is done by the training loop
    groups = [{"params": list(learnt.values()), "rate": config.lr}]
    return Trainee(backbone, learnt, groups, backbone, codec, None)


_WITHOUT_PATCH = {
    **dict.fromkeys(("lora", "dora"), _prepare_adapter),
    **dict.fromkeys(("bitfit", "difffit"), _prepare_tuned),
}
