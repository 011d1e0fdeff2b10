from .arrays import (
    HEADER_BYTES as HEADER_BYTES,
    array_header as array_header,
    list_entries as list_entries,
    read_arrays as read_arrays,
)
from .atomic import (
    append_text as append_text,
    cannot_write as cannot_write,
    json_bytes as json_bytes,
    make_folder as make_folder,
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
from .diffusers_folder import peek_config as peek_config, peek_pipeline as peek_pipeline
from .headers import Header as Header, read_header as read_header
from .hf_transformers import (
    reason_of as reason_of,
    transformers_for as transformers_for,
    without_warnings as without_warnings,
)
from .home import cache_folder as cache_folder, can_write as can_write, home_folder as home_folder
from .limits import (
    SMALL as SMALL,
    check_file as check_file,
    check_memory as check_memory,
    holds as holds,
    in_bytes as in_bytes,
    physical_memory as physical_memory,
    read_bounded as read_bounded,
)
from .mapping import let_go as let_go, map_array as map_array, take as take
from .model_files import model_file_names as model_file_names, variant_of as variant_of
from .ownership import (
    check_unowned as check_unowned,
    clear_owned as clear_owned,
    drop_owner as drop_owner,
    holder_of as holder_of,
    identity_of as identity_of,
    is_of_owner as is_of_owner,
    is_untouched as is_untouched,
    own as own,
    refuse_existing as refuse_existing,
)
from .partials import (
    PARTIAL as PARTIAL,
    is_abandoned as is_abandoned,
    remove_partials as remove_partials,
    whole_name as whole_name,
)
from .pickle_folders import unpickled as unpickled
from .regular import open_regular as open_regular, read_regular as read_regular, what_is as what_is
from .sealed_header import read_sealed as read_sealed, sealed as sealed
from .store_folder import StoreFolder as StoreFolder, key_of as key_of, read_manifest as read_manifest
from .strict import (
    check_finite as check_finite,
    check_floating as check_floating,
    digest_tensors as digest_tensors,
    load_strictly as load_strictly,
)
from .structured import (
    check_types as check_types,
    line_of as line_of,
    parse_json as parse_json,
    parse_json_lines as parse_json_lines,
    read_json as read_json,
    read_json_lines as read_json_lines,
    read_object as read_object,
    read_toml as read_toml,
    toml_text as toml_text,
    whole_json_lines as whole_json_lines,
)
from .text import decode_text as decode_text, read_lines as read_lines, read_text as read_text
from .torchscript import open_torchscript as open_torchscript
from .weight_names import PICKLES as PICKLES, SAFETENSORS as SAFETENSORS
from .weights import (
    NOISE_NAME as NOISE_NAME,
    PATCH_NAMES as PATCH_NAMES,
    Weights as Weights,
    read_safetensors as read_safetensors,
    read_weights as read_weights,
)
