"""The kinds of input that chaos damages and forges, by name."""

from __future__ import annotations

from importlib import import_module

from ..cases import Kind

NAMES = ("patch-raw", "patch-sealed", "statistics", "gates", "state", "run", "samples", "store", "adapter")
NAMES += ("backbone", "archives", "captions", "configs", "images", "vae", "features", "arrays", "imports", "text")
NAMES += ("latents", "tuned", "searches", "texts", "kills")


def kind_of(name: str) -> type[Kind]:
    """The class of a kind: the one in the module of its name, which imports what it needs."""
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    return next(
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Kind) and found.__module__ == module.__name__
    )
