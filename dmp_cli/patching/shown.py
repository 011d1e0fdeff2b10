"""How a patch and a patched backbone show themselves: three lines of text, and in a notebook the gates as a picture."""

from __future__ import annotations

import base64
import html
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from ..errors import DMPError, visible

if TYPE_CHECKING:
    from .patched import PatchedBackbone
    from .prompts import Patch

_DIGITS = 12  # of a digest
_owners: weakref.WeakKeyDictionary[Patch, weakref.ref[PatchedBackbone]] = weakref.WeakKeyDictionary()
_drawers: list[Callable[[PatchedBackbone, str], bytes]] = []  # at most one: what draws gates lies in a wing above


def draw_with(drawer: Callable[[PatchedBackbone, str], bytes]) -> None:
    """From now on notebooks show what ``drawer(patched, name)`` draws: the gates of a patch, as PNG."""
    _drawers[:] = [drawer]


def note_owner(patch: Patch, owner: PatchedBackbone | None) -> None:
    """Remember on which backbone ``patch`` is; None: on none."""
    if owner is None:
        _owners.pop(patch, None)
    else:
        _owners[patch] = weakref.ref(owner)


def owner_of(patch: Patch) -> tuple[PatchedBackbone, str] | None:
    """The backbone that ``patch`` is attached to, and its name there; None: it is attached to none."""
    found = _owners[patch]() if patch in _owners else None
    name = None if found is None else next((name for name, one in found.patches.items() if one is patch), None)
    return None if found is None or name is None else (found, name)


def kind_of(patch: Patch) -> str:
    """What kind of mixture it is and how large, in words."""
    config, parts = patch.config, []
    if config.has_prompts:
        placed = "" if config.position == "add" else " put in front"
        parts.append(f"{patch.num_prompts:,} prompts{placed}")
    if patch.num_experts:
        parts.append(f"{patch.num_experts} low-rank experts of rank {config.rank}")
    gate = "no gate" if config.gate == "none" else f"{config.gate} gate"
    return f"{gate}, {' and '.join(parts) or 'nothing'} in each of {len(patch.hidden_shapes)} blocks"


def _training_of(patch: Patch) -> str:
    training = None if patch.record is None else patch.record.training
    done = (training or {}).get("steps_done")
    return "not trained" if done is None else f"trained for {done:,} steps"


def _backbone_of(patch: Patch) -> str:
    if patch.record is None:
        return "a backbone without a record"
    about = patch.record.backbone
    return f"{about.name or about.source} ({about.family}, sha256 {about.digest[:_DIGITS]}…)"


class ShownPatch:
    """How a patch shows itself."""

    def __repr__(self) -> str:
        patch = cast("Patch", self)
        owner = owner_of(patch)
        state = "not attached" if owner is None else f"attached, strength {owner[0].strength_of(owner[1]):g}"
        lines = (
            f"Patch for {_backbone_of(patch)}",
            f"{kind_of(patch)}, {patch.num_parameters():,} parameters",
            f"{_training_of(patch)}, {state}",
        )
        return visible("\n".join(lines))

    def _repr_html_(self) -> str:
        patch = cast("Patch", self)
        owner = owner_of(patch)
        if owner is not None:
            return _as_html(repr(self), *owner)
        patched = _reattach(patch)
        if patched is None:
            return _as_html(repr(self), None, "")
        shown = repr(self)  # before it is attached, in a copy, to be drawn
        return _as_html(shown, *patched)


class ShownBackbone:
    """How a patched backbone shows itself."""

    def __repr__(self) -> str:
        patched = cast("PatchedBackbone", self)
        record, patches = patched.backbone.record, patched.patches
        about = "" if record is None else f" {record.name or record.source}, sha256 {record.digest[:_DIGITS]}…"
        lines = [f"PatchedBackbone: {patched.backbone.family}{about}"]
        if not patches:
            return visible("\n".join([*lines, kind_of(patched.patch), f"{_training_of(patched.patch)}, detached"]))
        for name, patch in patches.items():
            beside = f"{name}: " if len(patches) > 1 else ""
            lines.append(f"{beside}{kind_of(patch)}")
            lines.append(f"{_training_of(patch)}, attached, strength {patched.strength_of(name):g}")
        return visible("\n".join(lines))

    def _repr_html_(self) -> str:
        patched = cast("PatchedBackbone", self)
        return _as_html(repr(self), patched if patched.patches else None, next(iter(patched.patches), ""))


def _reattach(patch: Patch) -> tuple[PatchedBackbone, str] | None:
    """A copy of ``patch`` on its backbone, loaded again from where it was; None: that cannot be done here."""
    import copy

    from ..backbones import reload_backbone
    from .attachment import attach
    from .patched import DEFAULT_NAME

    if patch.record is None or not _drawers:
        return None
    try:
        return attach(reload_backbone(patch.record), copy.deepcopy(patch)), DEFAULT_NAME
    except (DMPError, OSError):
        return None


def _as_html(text: str, patched: PatchedBackbone | None, name: str) -> str:
    """The text, and below it the gates of the patch called ``name``, where they can be drawn."""
    shown = f"<pre>{html.escape(text)}</pre>"
    if patched is None or not _drawers:
        return shown
    try:
        picture = _drawers[0](patched, name)
    except DMPError:  # it has no gate, or its gate reads more than the timestep
        return shown
    encoded = base64.b64encode(picture).decode()
    return f'{shown}<img alt="gate weights" style="max-width:100%" src="data:image/png;base64,{encoded}">'
