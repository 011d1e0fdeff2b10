"""``dmp sample``: its options, and one process' part of the work."""

from .command import sample

__all__ = ["sample"]
