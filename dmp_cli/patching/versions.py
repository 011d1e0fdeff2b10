"""Two versions of one network, ours and another one, that predict side by side: a batch says which row is whose.

Guidance between versions moves our prediction a away from that of the other one, b: a + W (a - b). Autoguidance (Karras
et al. 2024) and SIMS (Alemohammad et al. 2024) have a second network for b. Here b may be a patch on the same frozen
weights: then both versions run as one batch, in which each row has its own patches.

Letters: B batch; (C, H, W) the shape of what the backbone denoises.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from ..backbones import Backbone, compiled_around
from ..config import describe_changes
from ..errors import ConfigError, PatchError
from .lora_rows import AdapterRows
from .patched import PatchedBackbone

Predict = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


class Versions(ABC):
    """Our version of a network, and the one that guidance leads away from."""

    patched: PatchedBackbone | None = None  # where gate weights may be kept for a whole step; see PatchedBackbone.at
    added_bytes = 0  # of weights that the other version has and ours has not

    @property
    def is_joint(self) -> bool:
        """Whether both versions run as one batch."""
        return True

    def __call__(self, x: Tensor, timesteps: Tensor, condition: Tensor | None, *, against: Tensor) -> Tensor:
        """Predictions for the rows of ``x`` (B, C, H, W): by the other version where ``against`` (B,), bool, is set."""
        if not against.any():
            return self.ours(x, timesteps, condition)
        return self.side_by_side(x, timesteps, condition, against)

    @abstractmethod
    def compile(self) -> None:
        """Predict with compiled networks from now on: one graph for each size of a batch and each set of versions."""

    @abstractmethod
    def ours(self, x: Tensor, timesteps: Tensor, condition: Tensor | None) -> Tensor:
        """Predictions of our version."""

    @abstractmethod
    def theirs(self, x: Tensor, timesteps: Tensor, condition: Tensor | None) -> Tensor:
        """Predictions of the other version."""

    def side_by_side(self, x: Tensor, timesteps: Tensor, condition: Tensor | None, against: Tensor) -> Tensor:
        """Predictions of both, one after the other."""
        parts = []
        for predict, rows in ((self.ours, ~against), (self.theirs, against)):
            own = rows.nonzero()[:, 0].to(x.device)
            parts.append((own, predict(x[own], timesteps[own], None if condition is None else condition[own])))
        whole = parts[0][1].new_empty((len(x), *parts[0][1].shape[1:]))
        for own, predicted in parts:
            whole[own] = predicted
        return whole


class PatchVersions(Versions):
    """Versions that differ in the patches on one backbone. They run as one batch, with no second copy of weights."""

    def __init__(self, patched: PatchedBackbone, *, theirs: Collection[str]) -> None:
        """``theirs`` are the names of the patches of the other version; all patches besides are ours."""
        unknown = set(theirs) - set(patched.patches)
        if unknown:
            raise PatchError(f"no patch called {min(unknown)} is attached")
        self.patched, self._theirs = patched, frozenset(theirs)
        self._call: Predict = patched.backbone

    def compile(self) -> None:
        assert self.patched is not None
        self._call = compiled_around(self.patched.backbone, self.patched.backbone)

    def ours(self, x: Tensor, timesteps: Tensor, condition: Tensor | None) -> Tensor:
        with self.alone(theirs=False):
            return self._call(x, timesteps, condition)

    def theirs(self, x: Tensor, timesteps: Tensor, condition: Tensor | None) -> Tensor:
        with self.alone(theirs=True):
            return self._call(x, timesteps, condition)

    def side_by_side(self, x: Tensor, timesteps: Tensor, condition: Tensor | None, against: Tensor) -> Tensor:
        if not self.is_joint:
            return super().side_by_side(x, timesteps, condition, against)
        with self.joint(against.to(x.device)):
            return self._call(x, timesteps, condition)

    @property
    def is_joint(self) -> bool:
        """Whether both versions run as one batch.

        Prompts in front of the tokens make longer sequences, so that rows with and without them do not fit together.
        """
        assert self.patched is not None
        return all(patch.config.position == "add" for patch in self.patched.patches.values())

    def alone(self, *, theirs: bool) -> contextlib.AbstractContextManager[None]:
        """Context in which the backbone computes one version."""
        assert self.patched is not None
        return self.patched.only({name for name in self.patched.patches if (name in self._theirs) == theirs})

    def joint(self, against: Tensor) -> contextlib.AbstractContextManager[None]:
        """Context in which the backbone computes the other version where ``against`` (B,) is set, and ours elsewhere.

        ``against`` is on the device of the batch.
        """
        assert self.patched is not None
        rows = against.float()
        return self.patched.rows({name: rows if name in self._theirs else 1 - rows for name in self.patched.patches})


class AdapterVersions(Versions):
    """A backbone with a LoRA adapter inside, and without it. They run as one batch.

    One after the other they take 4 % longer for a DiT-S/2 on a CPU, and up to 40 % longer for the narrow network of the
    digits; see benchmarks/RESULTS.md.
    """

    def __init__(self, backbone: nn.Module, *, is_ours: bool) -> None:
        """``is_ours``: whether our version is the one with the adapter."""
        self._backbone, self._is_ours, self._adapter = backbone, is_ours, AdapterRows(backbone)
        self._call: Predict = backbone

    def compile(self) -> None:
        self._call = torch.compile(self._backbone, dynamic=False)

    def ours(self, x: Tensor, timesteps: Tensor, condition: Tensor | None) -> Tensor:
        with self._adapter.acting(everywhere=self._is_ours):
            return self._call(x, timesteps, condition)

    def theirs(self, x: Tensor, timesteps: Tensor, condition: Tensor | None) -> Tensor:
        with self._adapter.acting(everywhere=not self._is_ours):
            return self._call(x, timesteps, condition)

    def side_by_side(self, x: Tensor, timesteps: Tensor, condition: Tensor | None, against: Tensor) -> Tensor:
        adapted = ~against if self._is_ours else against
        if not adapted.any():
            return self.theirs(x, timesteps, condition)
        with self._adapter.rows(adapted.cpu(), device=x.device):
            return self._call(x, timesteps, condition)


class BackboneVersions(Versions):
    """Our network, and another backbone with weights of its own. They run one after the other."""

    def __init__(self, ours: nn.Module, other: nn.Module) -> None:
        self._ours: Predict = ours
        self._other: Predict = other
        self.patched = ours if isinstance(ours, PatchedBackbone) else None
        mine, theirs = ({t.data_ptr(): t.nbytes for t in (*one.parameters(), *one.buffers())} for one in (ours, other))
        self.added_bytes = sum(size for place, size in theirs.items() if place not in mine)

    @property
    def is_joint(self) -> bool:
        return False

    def compile(self) -> None:
        self._ours, self._other = (torch.compile(one, dynamic=False) for one in (self._ours, self._other))

    def ours(self, x: Tensor, timesteps: Tensor, condition: Tensor | None) -> Tensor:
        return self._ours(x, timesteps, condition)

    def theirs(self, x: Tensor, timesteps: Tensor, condition: Tensor | None) -> Tensor:
        return self._other(x, timesteps, condition)


def refuse_text(ours: Backbone, *, named: str) -> None:
    """Raise ConfigError where another backbone cannot stand beside ``ours``; ``named`` is how a user named it."""
    if ours.takes_text:
        raise ConfigError(
            f"{named}: another backbone that reads text would need a text encoder of its own",
            hint="Give a patch or an adapter of this backbone.",
        )


def check_alike(ours: Backbone, other: Backbone, *, named: str) -> None:
    """Raise ConfigError where two backbones are of different shapes, classes or noise schedules."""
    for what in ("family", "sample_shape", "num_classes", "learns_sigma"):
        if getattr(other, what) != getattr(ours, what):
            told = what.replace("_", " ")
            raise ConfigError(f"{named}: its {told} is {getattr(other, what)}, not {getattr(ours, what)}")
    noises = [one.schedule.model_dump(exclude={"sampling"}) for one in (other, ours)]
    if noises[0] != noises[1]:
        differing = describe_changes(*noises)
        raise ConfigError(f"{named} was trained under another noise schedule than the backbone: {differing}")
