"""``dmp patch``: its options, and what it prints of a patch."""

from .command import patch

__all__ = ["patch"]
