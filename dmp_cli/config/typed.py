"""Values that are typed as one word and kept as several: ``qkv,proj``, ``207,360``, ``0.1,0.9``, ``4x4``, ``3/8``."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator

from .base import refuse
from .bounds import MAX_BATCH
from .shapes import read_size

_MOST_TILES = 10_000
_MOST_SCALES, _LARGEST_SCALE = 50, 1000
SCALES = (0.5, 1.0, 1.5, 2.0)  # W to choose from, where nothing else is said
_DIGITS = re.compile(r"[0-9]{1,18}")


def _split_words(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _split_classes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value == "all":
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise refuse(f"--classes {value}: give class indices such as 207,360, or all") from None


def _split_interval(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        low, high = (float(part) for part in value.split(","))
    except ValueError:
        raise refuse(f"--guidance-interval {value}: give two shares of the schedule, such as 0.1,0.9") from None
    return low, high


def _split_grid(value: Any, *, option: str = "grid", of: str = "images") -> Any:
    if not isinstance(value, str):
        return value
    rows, _, columns = value.lower().partition("x")
    if not (_DIGITS.fullmatch(rows) and _DIGITS.fullmatch(columns) and int(rows) and int(columns)):
        raise refuse(f"--{option} {value}: give rows and columns such as 4x4")
    if int(rows) * int(columns) > _MOST_TILES:
        raise refuse(f"--{option} {value}: a grid has {_MOST_TILES:,} {of} at most")
    return int(rows), int(columns)


def _split_prompt_grid(value: Any) -> Any:
    return None if value == "tokens" else _split_grid(value, option="prompt-grid", of="prompts")


def _split_part(value: Any, *, option: str) -> Any:
    if not isinstance(value, str):
        return value
    number, _, total = value.partition("/")
    if not (_DIGITS.fullmatch(number) and _DIGITS.fullmatch(total) and 1 <= int(number) <= int(total)):
        raise refuse(f"--{option} {value}: give the number of the part and how many parts there are, such as 3/8")
    return int(number) - 1, int(total)


def _read_crop(value: Any) -> Any:
    return value if value is None or value == "none" else read_size(value, option="--crop", other=", or none")


def _split_scales(value: Any) -> Any:
    """Distinct scales above 0, in rising order."""
    try:
        scales = [float(part) for part in value.split(",")] if isinstance(value, str) else list(value)
    except ValueError:
        raise refuse(f"--scales {value}: give numbers such as 0.5,1,2") from None
    told = ",".join(f"{scale:g}" for scale in scales)
    if not scales or not all(0 < scale < _LARGEST_SCALE for scale in scales):
        raise refuse(f"--scales {told}: scales are above 0 and below {_LARGEST_SCALE}; 0 is the backbone itself")
    if len({f"{scale:g}" for scale in scales}) < len(scales) or len(scales) > _MOST_SCALES:
        raise refuse(f"--scales {told}: give each scale once, and {_MOST_SCALES} at most")
    return tuple(sorted(scales))


def _split_seeds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    if not all(_DIGITS.fullmatch(part) for part in parts):
        raise refuse(f"--final-seeds {value}: give whole numbers such as 1,2,3")
    return tuple(map(int, parts))


def _split_batches(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    if not all(_DIGITS.fullmatch(part) and 1 <= int(part) <= MAX_BATCH for part in parts):
        raise refuse(f"--batches {value}: give numbers of images from 1 to {MAX_BATCH:,}, such as 1,4,16")
    return tuple(sorted({int(part) for part in parts}))


def split_pairs(value: Any, *, option: str, example: str) -> Any:
    """``a=b,c=d`` as a dict."""
    if not isinstance(value, str):
        return value
    pairs = [part.strip().partition("=") for part in value.split(",")]
    if not all(name and mark and given for name, mark, given in pairs):
        raise refuse(f"--{option} {value}: give names and values, such as {example}")
    return {name: given for name, _, given in pairs}


def _split_rates(value: Any) -> Any:
    found = split_pairs(value, option="encoder-dropout", example="text_encoder=0.5,text_encoder_2=0.5")
    if not isinstance(found, dict):
        return found
    try:
        rates = {name: float(rate) for name, rate in found.items()}
    except (TypeError, ValueError):
        rates = {}
    if not rates or not all(0 <= rate <= 1 for rate in rates.values()):
        raise refuse(f"--encoder-dropout {value}: give shares from 0 to 1, such as text_encoder=0.5")
    return rates


def as_word(name: str, value: Any) -> Any:
    """A value of the field ``name`` as it is typed: the inverse of what this module reads."""
    if isinstance(value, dict):
        return ",".join(f"{key}={one}" for key, one in value.items())
    if name == "prompt_grid" and value is None:
        return "tokens"
    if not isinstance(value, tuple | list):
        return value
    if name.endswith("_part"):
        return f"{value[0] + 1}/{value[1]}"
    return ("x" if name.endswith("grid") else ",").join(map(str, value))


Words = Annotated[tuple[str, ...], BeforeValidator(_split_words)]
Classes = Annotated[tuple[int, ...] | None, BeforeValidator(_split_classes)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_split_seeds)]
Batches = Annotated[tuple[int, ...], BeforeValidator(_split_batches)]  # distinct, rising
Interval = Annotated[tuple[float, float], BeforeValidator(_split_interval)]
Scales = Annotated[tuple[float, ...], BeforeValidator(_split_scales)]  # distinct, above 0, rising
Grid = Annotated[tuple[int, int], BeforeValidator(_split_grid)]  # rows, columns
PromptGrid = Annotated[tuple[int, int] | None, BeforeValidator(_split_prompt_grid)]  # None: one for each token
# The part's number from 0, and how many there are.
Shard = Annotated[tuple[int, int], BeforeValidator(partial(_split_part, option="shard"))]
ValPart = Annotated[tuple[int, int], BeforeValidator(partial(_split_part, option="val-part"))]
ReferencePart = Annotated[tuple[int, int], BeforeValidator(partial(_split_part, option="reference-part"))]
Split = BeforeValidator(_split_words)
Crop = Annotated[int | str | None, BeforeValidator(_read_crop)]  # "none": no crop
Rates = Annotated[dict[str, float], BeforeValidator(_split_rates)]  # by the name of a text encoder
