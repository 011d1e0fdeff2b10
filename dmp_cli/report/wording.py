"""Words of pages: short names for paths, and a difference with its interval as part of a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, with as many parts before it as tell them apart."""
    most = max((len(Path(path).parts) for path in paths), default=1)
    for count in range(1, most + 1):
        names = ["/".join(Path(path).parts[-count:]) for path in paths]
        if len({*names}) == len({*paths}):
            return names
    return list(paths)


def compare_in_words(
    difference: float, interval: Sequence[float] | None, *, base: str, of: str, higher_is_better: bool, unit: str = ""
) -> str:
    """How a score differs from that of ``base``, behind a name and "is"; ``of`` says of which score and images.

    ``base`` is as it is to stand there, a name in `backticks`.
    """
    if interval is None:
        return f"{difference:+.3g}{unit} from {base} ({of}; without an interval)."
    low, high = interval
    if low <= 0 <= high:
        return f"not told apart from {base}: {difference:+.3g}{unit}, 95 % {low:+.3g} to {high:+.3g}{unit} ({of})."
    ends = sorted((abs(low), abs(high)))
    word = "better" if (difference > 0) == higher_is_better else "worse"
    return f"{abs(difference):.3g}{unit} {word} than {base}, 95 % {ends[0]:.3g} to {ends[1]:.3g}{unit} ({of})."


def span_in_words(difference: float, interval: Sequence[float], *, unit: str = "") -> str:
    """A difference and its interval, as beside a dot: ``-0.4 (-0.5 to -0.3)``."""
    return f"{difference:+.3g}{unit} ({interval[0]:+.3g} to {interval[1]:+.3g})"
