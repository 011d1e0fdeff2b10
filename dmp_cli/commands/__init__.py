"""One module or folder per command: options, one verb of the engine, and what is printed. No torch at the top.

In: what was typed. Out: files, progress on stderr, and the result on stdout, as text or as one JSON object.
Start reading at ``patch``, the shortest way from options to a file. ``COMMANDS`` lists them in the order of ``--help``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
