from .about_types import check_about as check_about, is_ours as is_ours
from .batches import (
    Batch as Batch,
    as_floats as as_floats,
    check_bad as check_bad,
    read_batches as read_batches,
    to_uint8 as to_uint8,
)
from .bounds import BOUNDS as BOUNDS, Bounds as Bounds
from .bucket_reader import BucketReader as BucketReader
from .buckets import (
    BucketRule as BucketRule,
    Buckets as Buckets,
    fill_buckets as fill_buckets,
    find_pictures as find_pictures,
)
from .classes import are_other as are_other, describe_classes as describe_classes
from .columns import Columns as Columns
from .decoding import CROP as CROP, center_crop as center_crop, decode as decode, naming as naming
from .elsewhere import Elsewhere as Elsewhere
from .folder import find_images as find_images
from .kinds import (
    RULES as RULES,
    describe_kinds as describe_kinds,
    hint_for_kinds as hint_for_kinds,
)
from .looks import Looks as Looks, look_at as look_at
from .own_samples import OwnSamples as OwnSamples
from .prefetch import Prefetch as Prefetch
from .readers import (
    Damaged as Damaged,
    LiveReader as LiveReader,
    Reader as Reader,
    fits_in_memory as fits_in_memory,
)
from .sample_files import (
    ABOUT as ABOUT,
    GRID as GRID,
    GROUP as GROUP,
    IMAGE as IMAGE,
    LATENT as LATENT,
    PLAN as PLAN,
    RECORD_SUMS as RECORD_SUMS,
    SUMS as SUMS,
    image_name as image_name,
    index_of as index_of,
    parse_record_sums as parse_record_sums,
    tars_in as tars_in,
)
from .shards import ShardImages as ShardImages
from .shared_images import refuse_shared as refuse_shared
from .source import ImageSource as ImageSource, Stamp as Stamp
from .subset import Subset as Subset, SubsetReader as SubsetReader, hold_out as hold_out
from .tars import TarHeaders as TarHeaders
from .together import find_together as find_together
from .zips import open_zip as open_zip, read_member as read_member
