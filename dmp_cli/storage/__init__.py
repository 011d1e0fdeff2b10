"""Writing files to the disk, and reading the weight files of other projects from it.

In: bytes, tensors and paths. Out: files that appear whole or not at all, and the tensors in weight files.
Nothing is ever loaded by executing it. Start reading at ``atomic`` (``write_bytes``), then ``weights``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
