"""From images on disk to the batch of a step.

In: a folder, a zip or tar shards. Out: an ``ImageSource``, and from it batches of uint8 pixels with labels or captions.
Start reading at ``source`` (what every data set answers), then ``folder`` and ``batches``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
