"""Scores folders of samples against a reference, with the spread of each score and its provenance.

In: an ``EvalConfig``. Out: an ``Evaluation``, as JSON, Markdown and one HTML page. A new metric goes here.
Start reading at ``scoring`` (``evaluate``), then ``features`` (the networks), ``metrics`` and ``spreads``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
