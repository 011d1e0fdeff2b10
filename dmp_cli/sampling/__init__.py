"""Numbered images from a backbone, the same ones for the same plan.

In: a ``SampleConfig`` and a backbone. Out: chunks of images, and the folder or tars that keep them.
Start reading at ``plan`` (which image is which), then ``sampler`` (``sample``) and ``folder``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
