from .backbones import load_backbone as load_backbone
from .config import PatchConfig as PatchConfig
from .patching import Patch as Patch, attach as attach, load_patch as load_patch, save_patch as save_patch
from .version import __version__ as __version__
