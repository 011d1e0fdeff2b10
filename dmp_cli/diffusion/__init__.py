"""The mathematics of diffusion, DDPM and flow: noise and the training loss. This wing knows no backbone.

In: a ``ScheduleConfig``, clean and noised tensors. Out: noised tensors, targets and per-sample losses.
Start reading at ``process`` (``Process``), then ``schedule`` and ``loss`` (a DDPM) and ``flow``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
