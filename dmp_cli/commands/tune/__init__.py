"""``dmp tune``: its options, the trials, and the final that measures what was found again."""

from .command import tune

__all__ = ["tune"]
