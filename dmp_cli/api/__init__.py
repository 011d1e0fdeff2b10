"""What Python users call: each verb of the command line as a function of objects that are in memory.

In: a loaded backbone, a patch, images. Out: a patched backbone, images, scores; files only where they are named.
Start reading at ``training`` (``train``), then ``drawing`` (``sample``).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
