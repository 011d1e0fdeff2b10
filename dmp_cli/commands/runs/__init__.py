"""``dmp runs``. Start reading at ``command``."""

from .command import runs

__all__ = ["runs"]
