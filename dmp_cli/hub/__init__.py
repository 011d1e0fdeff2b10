"""The hub: patches that are pushed there with a card, and patches that are found in its local cache.

In: a patch file and what is known of it, or a name such as user/name@revision. Out: files on the hub, or a path here.
Nothing is fetched unless it is allowed. Start reading at ``publishing``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
