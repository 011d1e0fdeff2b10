"""One training loop for all methods. A run can be killed at any moment and continued.

In: a ``TrainConfig``, images and a ``Trainee``. Out: one ``Progress`` per step, and the files of a run.
Start reading at ``trainer`` (``train``), then ``loop`` (one step) and ``methods`` (what each method learns).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
