"""``dmp train``: its options, one process' part of the work, its latent store, and what is watched meanwhile."""

from .command import train

__all__ = ["train"]
