"""``dmp push``. Start reading at ``command``."""

from .command import push

__all__ = ["push"]
