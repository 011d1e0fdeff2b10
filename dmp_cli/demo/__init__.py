"""The embedded digits and backbone, and the story that ``dmp demo`` tells with them.

In: a folder and a budget. Out: the commands to run, then one page to look at.
Start reading at ``story``; ``digits`` holds the images.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
