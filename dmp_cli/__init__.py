"""Patches for diffusion checkpoints: mixture-of-prompts that improve a frozen, converged backbone.

The public names load lazily, so that ``import dmp_cli`` and the command line's ``--help`` import no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
