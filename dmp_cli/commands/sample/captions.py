"""The prompts of a set of samples, encoded before its backbone needs the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DMPError
from ..console import Printer
from ..texts import Captions
from .own_sampler import backbone_of

if TYPE_CHECKING:
    import torch

    from ...backbones import Backbone
    from ...runtime import World
    from ...sampling import Plan
    from .job import Request

_REMEMBERED = 100_000  # texts


def encode_early(
    request: Request, recorded: dict[str, Any] | None, *, world: World, device: torch.device, printer: Printer
) -> Captions:
    """Encode the prompts before the weights of the backbone are read, where its place tells where the encoders are.

    A folder that is continued goes on as it began, and only what is still to be drawn is encoded, later.
    """
    earlier: dict[str, Any] = {} if recorded is None else {"earlier": recorded.get("made", {}).get("text_store")}
    how: dict[str, Any] = {"world": world, "device": device, "printer": printer}
    captions = Captions(request.texts, **how, **earlier)
    if recorded is None:
        _encode(captions, request)
    return captions


def _encode(captions: Captions, request: Request) -> None:
    from ...backbones import peek_backbone

    network = request.network
    if network.name is None and request.patches:
        place = backbone_of(request.patches[0].path)
        network = network.model_copy(update={"backbone": place if place and Path(place).exists() else None})
    if network.name is None:
        return
    try:
        peeked = peek_backbone(network.name, network.checkpoint)
    except (DMPError, OSError):  # the load says what is wrong
        return
    captions.encode_early(network, peeked, _prompts(request), holds=True)


def _prompts(request: Request) -> Iterator[str]:
    """All prompts and negative prompts that the images can need."""
    count = request.config.num_images
    for line in islice(request.prompts or (), count):
        yield from (text for text in (line.text, line.negative) if text)
    for row in islice(request.lines or (), count):
        yield from (text for text in (row.prompt, row.negative) if text)


def captions_of(plan: Plan, todo: Iterable[range]) -> Iterator[str]:
    """The prompts and negative prompts of the images in ``todo``."""
    for item in (plan.item(index) for chunk in todo for index in chunk):
        yield from (text for text in (item.prompt, item.negative) if text)


def _distinct(texts: Iterable[str]) -> Iterator[str]:
    """Each text once, as far as memory is to hold them: of very many, those beyond are given as often as they come."""
    seen: set[str] = set()
    for text in texts:
        if text not in seen:
            yield text
            if len(seen) < _REMEMBERED:
                seen.add(text)


def warn_of_long(plan: Plan, backbone: Backbone, printer: Printer) -> None:
    """Show what the text encoder will not read of the prompts."""
    from ...sampling import find_long

    long = find_long(_distinct(captions_of(plan, [range(plan.config.num_images)])), backbone)
    if long.found:
        printer.warn(long.in_words("prompts"))
