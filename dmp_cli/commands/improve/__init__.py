"""``dmp improve``: its options, the road they ask for, and the page that ends it."""

from .command import improve

__all__ = ["improve"]
