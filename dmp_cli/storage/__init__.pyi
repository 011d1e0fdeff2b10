from .atomic import (
    PARTIAL as PARTIAL,
    append_text as append_text,
    home_folder as home_folder,
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
from .diffusers_folder import peek_config as peek_config
from .hf_transformers import reason_of as reason_of, transformers_for as transformers_for
from .torchscript import open_torchscript as open_torchscript
from .weights import (
    NOISE_NAME as NOISE_NAME,
    PATCH_NAMES as PATCH_NAMES,
    PICKLES as PICKLES,
    SAFETENSORS as SAFETENSORS,
    Weights as Weights,
    digest_tensors as digest_tensors,
    load_strictly as load_strictly,
    read_safetensors as read_safetensors,
    read_weights as read_weights,
)
