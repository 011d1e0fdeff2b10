from .fill import (
    default_text_folder as default_text_folder,
    describe_texts as describe_texts,
    encode_missing as encode_missing,
    foretell_bytes as foretell_bytes,
    row_bytes as row_bytes,
    row_of as row_of,
)
from .store import TextStore as TextStore, TextStoreRecord as TextStoreRecord
