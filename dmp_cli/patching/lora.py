"""LoRA adapters (Hu et al. 2021): low-rank updates of frozen layers. Only this module imports peft.

A chosen linear layer with weights W (out, in) computes ``W x + B A x``, with A (rank, in) and B (out, rank). Alpha
equals the rank, so that the usual factor alpha / rank is 1.

DoRA (Liu et al. 2024) gives each row of the updated weights a length m (out,) that is learnt too:
``m / |W + B A| * (W x + B A x)``, with the length |.| of each row. As in the paper and in peft, no gradient passes
through |W + B A|.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..backbones import Backbone
from ..config import BackboneRecord
from ..errors import ConfigError
from ..runtime import randomness
from .targets import pick_layers

_PREFIX = "base_model.model."  # peft puts it in front of every name in a file
_LENGTHS = "lora_magnitude_vector"  # its name for m


@dataclass(frozen=True)
class Adapter:
    """The low-rank updates in a backbone's layers."""

    rank: int
    is_dora: bool  # whether the rows of the updated weights have lengths of their own
    layers: tuple[str, ...]  # names of the adapted linear layers in the backbone
    parameters: dict[str, nn.Parameter]  # by their names in peft's file
    backbone: BackboneRecord | None  # None for a backbone made in code


def create_adapter(
    backbone: Backbone, *, rank: int, targets: tuple[str, ...] | None, seed: int, is_dora: bool = False
) -> Adapter:
    """Put a new adapter into ``backbone`` and freeze everything else.

    B starts at zero, and m at the lengths of W, so that the adapter changes no output bit before it is trained.

    Args:
        targets: names of linear layers in every block, such as ``qkv`` or ``attn.qkv``; None: the family's default.
        seed: together with a layer's place in the list it fixes the layer's first A.
        is_dora: whether the rows of the updated weights have lengths of their own.

    Raises:
        ConfigError: no layer of a block has one of the names, a layer has no length for DoRA, or peft is not installed.
    """
    layers = find_layers(backbone, targets)
    if is_dora:
        _check_lengths(layers)
    adapter = inject(
        backbone, layers, rank=rank, is_dora=is_dora, wanted_by=f"--method {'dora' if is_dora else 'lora'}"
    )
    for place, layer in enumerate(layers):
        down, up, *_ = (adapter.parameters[name] for name in _names(layer, is_dora=is_dora))
        fresh = torch.empty(down.shape)  # drawn on the CPU: every device starts from the same weights
        source = randomness.torch_generator("lora", seed=seed, index=place)
        nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=source)  # uniform in +-1/sqrt(in), as in peft
        down.data.copy_(fresh)
        up.data.zero_()
    for parameter in adapter.parameters.values():
        parameter.requires_grad_(True)
    return adapter


def _check_lengths(layers: Mapping[str, nn.Linear]) -> None:
    """Raise ConfigError where a row of weights is zero: DoRA divides by its length."""
    for name, layer in layers.items():
        if not layer.weight.any(dim=1).all():
            raise ConfigError(
                f"--method dora: a row of the weights of {name} is all zero, and has no length to divide by",
                hint="Leave the layer out with --lora-targets, or use --method lora.",
            )


def find_layers(backbone: Backbone, targets: tuple[str, ...] | None) -> dict[str, nn.Linear]:
    """The linear layers of all blocks that ``targets`` name, by their full names, in the backbone's order.

    Raises:
        ConfigError: a name matches no layer; the hint lists the layers that there are.
    """
    wanted = backbone.lora_targets if targets is None else targets
    paths = {id(module): path for path, module in backbone.core.named_modules()}
    blocks = backbone.list_blocks()
    own = [{n: o for n, o in block.module.named_modules() if isinstance(o, nn.Linear)} for block in blocks]
    chosen = pick_layers(own, wanted, option="--lora-targets")
    return {
        f"{paths[id(block.module)]}.{name}": layer
        for block, layers in zip(blocks, chosen, strict=True)
        for name, layer in layers.items()
    }


def inject(backbone: Backbone, layers: Mapping[str, nn.Linear], *, rank: int, is_dora: bool, wanted_by: str) -> Adapter:
    """Wrap ``layers`` in peft's LoRA layers and freeze everything. A and B are float32; the caller fills them.

    For DoRA m has the lengths of W, in float32 too.

    Raises:
        ConfigError: peft is not installed; ``wanted_by`` is the option that needs it.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(f"{wanted_by} needs peft", hint="pip install 'peft>=0.13'") from error
    expected = adapter_shapes(layers, rank=rank, is_dora=is_dora)
    fields = peft_fields(layers, rank=rank, is_dora=is_dora)
    inject_adapter_in_model(LoraConfig(**fields), backbone.core, adapter_name="default")
    backbone.requires_grad_(False)
    backbone.eval()
    found = {_PREFIX + _in_file(name): parameter for name, parameter in backbone.core.named_parameters()}
    parameters = {name: found[name] for name in expected}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    assert {name: tuple(parameter.shape) for name, parameter in parameters.items()} == expected
    assert sum(".lora_" in name for name in found) == len(expected), "peft adapted other layers than asked for"
    return Adapter(rank, is_dora, tuple(layers), parameters, backbone.record)


def _in_file(name: str) -> str:
    """The name in peft's file of a parameter inside the backbone."""
    return name.replace(f".{_LENGTHS}.default.weight", f".{_LENGTHS}").replace(".default.", ".")


def adapted_layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers inside ``backbone`` that an adapter changes."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in backbone.modules() if isinstance(module, BaseTunerLayer)]


def switch_off(backbone: nn.Module) -> None:
    """Switch peft's own additions off, in all threads, and freeze the adapter: ``backbone`` computes as without one."""
    for layer in adapted_layers(backbone):
        layer.enable_adapters(enabled=False)  # type: ignore[operator]


@contextlib.contextmanager
def adapter_off(backbone: nn.Module) -> Iterator[None]:
    """Context in which ``backbone`` computes as without the adapter that is trained in it."""
    layers: list[Any] = adapted_layers(backbone)
    before = [layer._disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = True  # enable_adapters(False) would freeze the adapter too
        yield
    finally:
        for layer, disabled in zip(layers, before, strict=True):
            layer._disable_adapters = disabled


def adapter_shapes(layers: Mapping[str, nn.Linear], *, rank: int, is_dora: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of A (rank, in), B (out, rank) and for DoRA m (out,) of each layer, by their names in peft's file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in layers.items():
        own = ((rank, layer.in_features), (layer.out_features, rank), (layer.out_features,))
        shapes |= dict(zip(_names(name, is_dora=is_dora), own, strict=False))
    return shapes


def peft_fields(layers: Iterable[str], *, rank: int, is_dora: bool) -> dict[str, Any]:
    """The fields of peft's config that build the same layers. Other fields keep the defaults of any peft version."""
    fields = {
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": list(layers),
        "task_type": None,
    }
    return fields | ({"use_dora": True} if is_dora else {})


def _names(layer: str, *, is_dora: bool) -> tuple[str, ...]:
    """The names of A and B of a layer in peft's file, and for DoRA that of m."""
    parts = ("lora_A.weight", "lora_B.weight", *([_LENGTHS] if is_dora else []))
    return tuple(f"{_PREFIX}{layer}.{part}" for part in parts)
