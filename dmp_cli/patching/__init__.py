"""The paper: a pool of prompts p_i, the gate G that weighs them, and hooks that add the mixture to a frozen backbone.

In: a backbone and a ``PatchConfig`` or a patch file. Out: a ``PatchedBackbone`` and patch files.
Start reading at ``prompts`` (Eq. 1 to 3) and ``gates``, then ``attachment`` (``attach``) and ``file``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
