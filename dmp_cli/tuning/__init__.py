"""A search over options of a training that is not fooled by itself: what it chose is measured again on the unseen.

In: a TOML of ranges, a budget. Out: trials in a journal that many processes share, the commands of each trial, then the
gain on seeds and images that no trial saw. Start reading at ``ranges``, then ``journal`` (trials) and ``outcome``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
