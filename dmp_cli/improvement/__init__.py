"""Makes a backbone better by sampling it against a version that has learnt its own mistakes from its own samples.

In: a backbone, real images to score against, and a budget. Out: the commands to run, then the scale and one page.
Start reading at ``negative`` (the version to sample against), then ``road`` (all commands) and ``choice`` (the scale).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
