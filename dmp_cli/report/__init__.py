"""Pictures and pages, made from plain numbers.

In: arrays, names and texts. Out: PNG bytes and one self-contained HTML page. This wing knows nothing of diffusion.
Start reading at ``html`` (``Page`` and ``render``); ``canvas`` holds the colours and sizes that all figures share.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
