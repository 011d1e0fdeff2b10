"""The seam: pretrained denoisers of every family, all used through the same five questions.

In: a name, a path or a hub id. Out: a ``Backbone``, strictly loaded, in eval mode, in float32.
Start reading at ``base`` (the five questions), then ``registry`` (from a name to a backbone). A new family goes here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
