"""Reading the images of a data set into the batches of training steps.

In: a folder, a zip or tar shards. Out: an ``ImageSource``, and from it batches of uint8 pixels with labels or captions.
Start reading at ``source`` (what every data set provides), then ``folder`` and ``batches``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
