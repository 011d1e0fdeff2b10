"""One module or folder per command: options, one verb of the engine, and what is printed. No torch at the top.

In: what was typed. Out: files, progress on stderr, and the result on stdout, as text or as one JSON object.
Start reading at ``patch``, the shortest way from options to a file. ``COMMANDS`` lists them in the order of ``--help``.
"""

from .ablate import ablate
from .convert import convert
from .demo import demo
from .evaluate import evaluate
from .improve import improve
from .inspect_gates import inspect_gates
from .patch import patch
from .sample import sample
from .train import train
from .tune import tune

COMMANDS = {
    "patch": patch,
    "train": train,
    "sample": sample,
    "eval": evaluate,
    "improve": improve,
    "inspect-gates": inspect_gates,
    "convert": convert,
    "ablate": ablate,
    "tune": tune,
    "demo": demo,
}

__all__ = ["COMMANDS"]
