from .fill import (
    default_text_folder as default_text_folder,
    describe_texts as describe_texts,
    encode_missing as encode_missing,
)
from .store import TextStore as TextStore, TextStoreRecord as TextStoreRecord
