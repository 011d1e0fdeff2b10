"""Measures what a patch does: its gate weights over timesteps and depth, and how large its mixture is.

In: gate weights and patched backbones. Out: numbers in CSV and JSON, and PNG bytes.
Start reading at ``gate_weights`` (``study``), then ``heatmaps``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
