"""The codec (a VAE, or nothing for pixels), and the store that keeps its output for every image.

In: images and a codec's name. Out: a ``Codec``, and a ``LatentStore`` that is filled once for all runs.
Start reading at ``codec`` (``Codec``), then ``store``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
