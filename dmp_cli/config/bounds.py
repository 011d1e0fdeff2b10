"""The largest values that options take where nothing else is said."""

from __future__ import annotations

MAX_PIXELS = 89_478_485  # of one image where nothing else is said: what Pillow warns above
MAX_FILE_SIZE = 512  # MB of one image where nothing else is said: about so many pixels of 24 bits, not compressed
MAX_BATCH = 1_000_000  # images of a step or a chunk
