"""The embedded digits and backbone, and the demonstration that ``dmp demo`` makes with them.

In: a folder and a budget. Out: the commands to run, then one page of results.
Start reading at ``story`` (the commands), then ``page``; ``digits`` holds the images.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
