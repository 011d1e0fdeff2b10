"""Commands that do not depend on each other run at once, each in a process of its own, here or on a cluster.

In: commands in an order that works. Out: all of them done, or one error that names the command that failed.
Start reading at ``graph`` (what waits for what), then ``schedule`` (the loop) and ``processes`` (a process here).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
