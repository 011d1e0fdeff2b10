"""Every option, its default and its range, and the records that files carry. This wing imports no torch.

In: what a user gave. Out: frozen records, or one ConfigError that names the option.
Start reading at ``base`` (``Frozen`` and ``build``), then ``train`` (``TrainConfig``).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
