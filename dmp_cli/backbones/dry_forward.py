"""One forward of a model that no family names, to see what its blocks are given.

It runs on ``meta`` where the model can, so that it takes no time and no memory; else on the model itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import CheckpointError

Shape = tuple[int, ...]

LATENTS = ("hidden_states", "sample", "x")  # what models call the noised image
TIMES = ("timestep", "timesteps", "t")
_WIDTHS = {  # fields of a config that say the last side of an argument
    "encoder_hidden_states": (
        *("joint_attention_dim", "cross_attention_dim", "caption_channels", "text_embed_dim", "cap_feat_dim"),
        "context_in_dim",
    ),
    "pooled_projections": ("pooled_projection_dim",),
}
_TOKENS = 8  # of a caption whose length is not given
_INTEGERS = ("labels", "input_ids")  # ends of the names of arguments that are indices


class Seen(NamedTuple):
    """What one forward showed."""

    latent: str  # the argument that is the noised image
    inputs: dict[str, Shape]  # what it was called with, by its own arguments; of a number ()
    vector: Shape  # what the timestep module gave
    hidden: dict[str, Shape]  # the hidden state in each block's call, by the block's name


def dry_forward(model: Any, names: Sequence[str], module: str, shapes: Mapping[str, Shape]) -> Seen:
    """What the blocks called ``names`` are given, and what ``module`` gives, in one forward of ``model``, of one image.

    ``shapes`` are those of arguments that the config does not tell.

    Raises:
        CheckpointError: an argument's shape is not known, the model does not run, or a module does not run once.
    """
    latent, inputs = _arguments(model, shapes)
    first: Exception | None = None
    for candidate in (_on_meta, lambda model: model):
        try:
            runner = candidate(model)
            return _run(runner, latent, inputs, names, module)
        except CheckpointError:
            raise
        except (
            Exception
        ) as error:  # a foreign model on stand-ins raises anything; on meta also what only that cannot do
            first = error
    reason = (str(first).splitlines() or [""])[0] or type(first).__name__
    raise CheckpointError(
        f"{type(model).__name__} does not run on {_told(inputs)}: {reason[:200]}",
        hint=f"Give the shapes with --inputs NAME=1x77x4096,...; it takes {', '.join(_parameters(model))}.",
    ) from first


def stand_ins(inputs: Mapping[str, Shape], like: Tensor) -> dict[str, Tensor]:
    """Arguments of these shapes, on the device and in the type of ``like``: indices are 0, all else is 1."""
    return {
        name: torch.zeros(shape, dtype=torch.int64, device=like.device)
        if name.endswith(_INTEGERS)
        else torch.ones(shape, dtype=like.dtype, device=like.device)
        for name, shape in inputs.items()
    }


def _parameters(model: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a model's forward."""
    return {
        name: parameter
        for name, parameter in inspect.signature(type(model).forward).parameters.items()
        if name not in ("self", "return_dict") and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }


def check_arguments(model: Any, shapes: Mapping[str, Shape]) -> None:
    """Raise CheckpointError for an argument that the model's forward does not take."""
    taken = _parameters(model)
    if unknown := sorted(shapes.keys() - taken.keys()):
        raise CheckpointError(
            f"{type(model).__name__} is not called with {unknown[0]}", hint=f"It takes {', '.join(taken)}."
        )


def _arguments(model: Any, shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Shape]]:
    """The name of the noised image, and the shapes of all arguments that are given."""
    check_arguments(model, shapes)
    taken = _parameters(model)
    latent = next((name for name in LATENTS if name in taken), None)
    if latent is None:
        raise CheckpointError(
            f"{type(model).__name__} is called with {', '.join(taken)}: none of them is known as the noised image "
            f"({', '.join(LATENTS)})"
        )
    known = {name: shape for name in taken if (shape := shapes.get(name, _guess(model, name, latent))) is not None}
    missing = [name for name, one in taken.items() if one.default is one.empty and name not in known]
    missing += [latent] if latent not in known and latent not in missing else []
    if missing:
        raise CheckpointError(
            f"the shape of {' and '.join(missing)}, which {type(model).__name__} is called with, is not known",
            hint=f"Give it with --inputs {','.join(f'{name}=…' for name in missing)}, for one image.",
        )
    return latent, known


def _guess(model: Any, name: str, latent: str) -> Shape | None:
    """The shape of an argument, where the config tells it."""
    config = model.config
    if name in TIMES:
        return (1,)
    if name == latent:
        side, channels = config.get("sample_size"), config.get("in_channels")
        sides = (side, side) if isinstance(side, int) else tuple(side or ())
        return (1, channels, *sides) if channels and len(sides) == 2 else None
    for field in _WIDTHS.get(name, ()):
        if isinstance(width := config.get(field), int):
            return (1, _TOKENS, width) if name == "encoder_hidden_states" else (1, width)
    return None


def _on_meta(model: Any) -> Any:
    with torch.device("meta"):
        return type(model).from_config(model.config).eval()


class _Watch:
    """Notes the shapes of one forward."""

    def __init__(self) -> None:
        self.hidden: dict[str, Shape] = {}
        self.vector: Shape | None = None
        self.runs: dict[str, int] = {}
        self.is_late = False  # whether the timestep module ran behind a block

    def on_block(self, name: str) -> Callable[..., None]:
        """A pre-hook on the block called ``name``."""

        def note(module: nn.Module, args: Any, kwargs: Any) -> None:
            given = args[0] if args else kwargs.get("hidden_states")
            if not isinstance(given, Tensor):
                named = ", ".join(kwargs) or "nothing"
                raise CheckpointError(
                    f"{name} is called with {named}: its hidden state is neither the first argument nor hidden_states"
                )
            self.runs[name] = self.runs.get(name, 0) + 1
            self.hidden[name] = tuple(given.shape)

        return note

    def on_vector(self, name: str) -> Callable[..., None]:
        """A hook on the timestep module."""

        def note(module: nn.Module, args: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or output.dim() != 2:
                told = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise CheckpointError(
                    f"--timestep-module {name} gives {told}, not a vector for each image, such as (1, 1024)"
                )
            self.runs[name] = self.runs.get(name, 0) + 1
            self.vector, self.is_late = tuple(output.shape), bool(self.hidden)

        return note


def _run(model: Any, latent: str, inputs: Mapping[str, Shape], names: Sequence[str], module: str) -> Seen:
    """One forward of ``model``, watched."""
    watch = _Watch()
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(watch.on_block(name), with_kwargs=True) for name in names
    ]
    hooks.append(model.get_submodule(module).register_forward_hook(watch.on_vector(module)))
    try:
        with torch.no_grad():
            model(**stand_ins(inputs, next(model.parameters())), return_dict=False)
    finally:
        for hook in hooks:
            hook.remove()
    for name in (module, *names):
        if (runs := watch.runs.get(name, 0)) != 1:
            raise CheckpointError(f"{name} runs {runs} times in a forward of {type(model).__name__}, not once")
    if watch.is_late:
        raise CheckpointError(f"--timestep-module {module} runs behind a block, too late for the gate")
    assert watch.vector is not None
    return Seen(latent, dict(inputs), watch.vector, watch.hidden)


def _told(inputs: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in inputs.items())
