from .baking import merge as merge
from .drawing import sample as sample
from .patches import (
    Patch as Patch,
    PatchedBackbone as PatchedBackbone,
    attach as attach,
    create_patch as create_patch,
    detach as detach,
    guide as guide,
    load_patch as load_patch,
    save_patch as save_patch,
)
from .scoring import evaluate as evaluate
from .training import train as train
