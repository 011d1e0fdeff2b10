"""An ablation: several ways to train (arms) are sampled and scored alike over several seeds, in one table.

In: a table of the paper or a TOML file of arms. Out: the commands to run, then one report.
Start reading at ``arms``, then ``plan`` (from arms to commands) and ``table``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
