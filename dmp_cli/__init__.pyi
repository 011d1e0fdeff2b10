from .api import (
    Patch as Patch,
    PatchedBackbone as PatchedBackbone,
    attach as attach,
    create_patch as create_patch,
    detach as detach,
    evaluate as evaluate,
    guide as guide,
    load_patch as load_patch,
    merge as merge,
    sample as sample,
    save_patch as save_patch,
    train as train,
)
from .backbones import load_backbone as load_backbone, wrap_by_hand as wrap_by_hand
from .config import (
    EvalConfig as EvalConfig,
    NetworkOptions as NetworkOptions,
    PatchConfig as PatchConfig,
    Prompt as Prompt,
    SampleConfig as SampleConfig,
    TrainConfig as TrainConfig,
)
from .errors import DMPError as DMPError
from .pipeline import (
    Loaded as Loaded,
    load_adapted as load_adapted,
    load_bare as load_bare,
    load_patched as load_patched,
)
from .version import __version__ as __version__
