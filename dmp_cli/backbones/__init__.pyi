from .base import Backbone as Backbone, Block as Block, Joined as Joined, Layout as Layout, Places as Places
from .blank_captions import BlankCaptions as BlankCaptions
from .by_hand import wrap_by_hand as wrap_by_hand
from .by_hand_folder import load_by_hand as load_by_hand
from .caption_table import CaptionTable as CaptionTable
from .claims import building as building, check_sizes as check_sizes
from .compiling import compiled_around as compiled_around, compiled_blocks as compiled_blocks
from .dit_export import (
    check_convertible as check_convertible,
    write_diffusers as write_diffusers,
    write_meta as write_meta,
)
from .embedded_guidance import guided_inside as guided_inside
from .empty import build_backbone as build_backbone, is_size_name as is_size_name, peek_backbone as peek_backbone
from .encoder_shares import find_shares as find_shares, withheld as withheld
from .encoders import Encoders as Encoders, check_same_text as check_same_text
from .families import build_from as build_from, register_family as register_family
from .flow_shift import shift_of as shift_of
from .framed_images import framed as framed
from .keeping import Keeping as Keeping, kept as kept
from .known_text import recall_text as recall_text
from .names import public_home as public_home
from .native_file import save_backbone as save_backbone, trained_classes as trained_classes
from .original_sd import vae_of as vae_of
from .own_sampling import OwnSampling as OwnSampling, Peeked as Peeked, peek_own_sampling as peek_own_sampling
from .registry import as_backbone as as_backbone, load_backbone as load_backbone, reload_backbone as reload_backbone
from .row_groups import own_rows as own_rows, running_rows as running_rows
from .schedules import named_schedule as named_schedule
from .sources import checkpoint_folder as checkpoint_folder, is_name as is_name
from .text import load_text as load_text, peek_text as peek_text, text_kind_of as text_kind_of
from .transformer import Transformer as Transformer
from .wrapped import sizes_of as sizes_of
