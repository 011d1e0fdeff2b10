"""How the process runs: devices, several processes, signals, what is printed, and all random numbers.

In: a device's name, the environment, a seed. Out: a torch device, a ``World``, a ``StopRequest``, generators.
Only ``distributed`` may import torch.distributed. Start reading at ``randomness``: every random number is a function of
what it is used for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
