"""The store that keeps what text encoders gave of every caption, so that they can leave memory.

In: captions, and the text encoders of a backbone. Out: a ``TextStore`` that is filled once for all runs.
Start reading at ``store`` (``TextStore``), then ``fill``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
