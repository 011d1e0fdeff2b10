"""``dmp ablate``: its options, the plan they ask for, and the report that ends it."""

from .command import ablate

__all__ = ["ablate"]
