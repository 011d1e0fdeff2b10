"""``--dtype fp16`` with a backbone whose values fp16 cannot hold, said before its weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Dtype, NetworkOptions
from ..errors import DMPError
from .console import Printer

if TYPE_CHECKING:
    from ..backbones import Backbone


def warn_of_fp16(dtype: Dtype | None, backbone: Backbone | None, printer: Printer) -> None:
    """Warn where the family of ``backbone`` is known for it; None: its folder or name does not tell the family."""
    if dtype == "fp16" and backbone is not None and backbone.overflows_fp16:
        printer.warn(
            f"--dtype fp16 ends at 65,504, and blocks of the family {backbone.family} go beyond: losses or images may "
            "not be finite; --dtype bf16 reaches as far as fp32"
        )


def warn_early(dtype: Dtype | None, network: NetworkOptions, place: str | None, printer: Printer) -> None:
    """The same for a network that nobody has looked at yet; ``place`` is that of a patch's backbone."""
    from ..backbones import peek_backbone

    name = network.name or place
    if dtype != "fp16" or name is None:
        return
    try:
        backbone = peek_backbone(name, network.checkpoint if network.name else None)
    except (DMPError, OSError):  # the load says what is wrong
        return
    warn_of_fp16(dtype, backbone, printer)


def place_of(patches: tuple[Path, ...]) -> str | None:
    """Where the backbone of the first patch was; None where there is no patch, or it does not say."""
    from .sample.own_sampler import backbone_of

    return backbone_of(patches[0]) if patches else None
