from .batches import (
    Batch as Batch,
    Damaged as Damaged,
    LiveReader as LiveReader,
    Reader as Reader,
    as_floats as as_floats,
    check_bad as check_bad,
    fits_in_memory as fits_in_memory,
    read_batches as read_batches,
    to_uint8 as to_uint8,
)
from .decoding import CROP as CROP, center_crop as center_crop, decode as decode
from .folder import find_images as find_images
from .prefetch import Prefetch as Prefetch
from .shards import ShardImages as ShardImages
from .source import ImageSource as ImageSource
