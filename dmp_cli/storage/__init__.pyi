from .atomic import (
    PARTIAL as PARTIAL,
    append_text as append_text,
    make_folder as make_folder,
    refuse_existing as refuse_existing,
    remove_partials as remove_partials,
    safetensors_bytes as safetensors_bytes,
    sha256_of as sha256_of,
    staged_file as staged_file,
    staged_folder as staged_folder,
    write_bytes as write_bytes,
    write_json as write_json,
    write_many as write_many,
    write_text as write_text,
)
from .containers import ORIGINAL_UNET as ORIGINAL_UNET
from .diffusers_folder import peek_config as peek_config
from .hf_transformers import reason_of as reason_of, transformers_for as transformers_for
from .home import cache_folder as cache_folder, can_write as can_write, home_folder as home_folder
from .model_files import model_file_names as model_file_names, variant_of as variant_of
from .pickle_folders import unpickled as unpickled
from .regular import open_regular as open_regular, read_regular as read_regular, what_is as what_is
from .strict import check_finite as check_finite, digest_tensors as digest_tensors, load_strictly as load_strictly
from .text import decode_text as decode_text, read_json as read_json, read_text as read_text, read_toml as read_toml
from .torchscript import open_torchscript as open_torchscript
from .weights import (
    NOISE_NAME as NOISE_NAME,
    PATCH_NAMES as PATCH_NAMES,
    PICKLES as PICKLES,
    SAFETENSORS as SAFETENSORS,
    Weights as Weights,
    read_safetensors as read_safetensors,
    read_weights as read_weights,
)
