"""The mathematics of diffusion: noise schedules and the training loss. This wing knows no backbone.

In: a ``ScheduleConfig``, clean and noised tensors. Out: noised tensors, targets and per-sample losses.
Start reading at ``schedule`` (``Schedule``), then ``loss`` (``denoising_loss``).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
