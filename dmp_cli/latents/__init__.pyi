from .codec import Codec as Codec, PixelCodec as PixelCodec
from .fill import (
    describe_store as describe_store,
    encode_missing as encode_missing,
    outdated_stores as outdated_stores,
    pays_off as pays_off,
    place_store as place_store,
)
from .kept import KeptLatents as KeptLatents, find_kept as find_kept
from .loading import check_vae_place as check_vae_place, load_codec as load_codec, load_vae as load_vae
from .sizes import image_size as image_size, set_image_size as set_image_size
from .store import LatentStore as LatentStore, StoreRecord as StoreRecord
