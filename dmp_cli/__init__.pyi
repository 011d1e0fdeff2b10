from .backbones import load_backbone as load_backbone, wrap_by_hand as wrap_by_hand
from .config import (
    EvalConfig as EvalConfig,
    NetworkOptions as NetworkOptions,
    PatchConfig as PatchConfig,
    SampleConfig as SampleConfig,
    TrainConfig as TrainConfig,
)
from .errors import DMPError as DMPError
from .evaluation import evaluate as evaluate
from .patching import (
    Patch as Patch,
    PatchedBackbone as PatchedBackbone,
    attach as attach,
    create_patch as create_patch,
    guide as guide,
    load_patch as load_patch,
    save_patch as save_patch,
)
from .pipeline import Loaded as Loaded, load_bare as load_bare, load_patched as load_patched
from .sampling import sample as sample
from .version import __version__ as __version__
