"""Scores of sample folders against a reference, with their spread and their provenance.

In: an ``EvalConfig``. Out: an ``Evaluation``, as JSON, Markdown and one HTML page. A new metric goes here.
Start reading at ``scoring`` (``evaluate``), then ``features`` (the networks) and ``metrics``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
