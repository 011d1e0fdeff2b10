from .adapters import load_any_adapter as load_any_adapter, tensors_of as tensors_of, training_of as training_of
from .attachment import attach as attach, create_patch as create_patch, detach as detach, owner_on as owner_on
from .balance import (
    Balance as Balance,
    LoadNoise as LoadNoise,
    authors_importance as authors_importance,
    measure_balance as measure_balance,
    measure_use as measure_use,
)
from .compatibility import check_variant as check_variant, prompted_blocks as prompted_blocks
from .export import bake_table as bake_table, describe_table as describe_table, save_table as save_table
from .file import (
    load_patch as load_patch,
    read_record as read_record,
    save_patch as save_patch,
    sha256_of_patch as sha256_of_patch,
)
from .gates import Gating as Gating
from .guided import guide as guide
from .guided_calls import Guidance as Guidance
from .import_authors import import_patch as import_patch, read_authors as read_authors
from .lora import Adapter as Adapter, adapter_off as adapter_off, create_adapter as create_adapter
from .lora_file import ADAPTER_TENSORS as ADAPTER_TENSORS, load_adapter as load_adapter, save_adapter as save_adapter
from .on_the_hub import base_model_of as base_model_of
from .patched import PatchedBackbone as PatchedBackbone
from .prompts import Patch as Patch
from .shown import draw_with as draw_with
from .tuned import Tuned as Tuned, create_tuned as create_tuned, share_weights as share_weights
from .tuned_file import (
    is_tuned as is_tuned,
    load_tuned as load_tuned,
    read_tuned as read_tuned,
    save_tuned as save_tuned,
)
from .versions import (
    AdapterVersions as AdapterVersions,
    BackboneVersions as BackboneVersions,
    PatchVersions as PatchVersions,
    Versions as Versions,
    check_alike as check_alike,
    refuse_text as refuse_text,
)
