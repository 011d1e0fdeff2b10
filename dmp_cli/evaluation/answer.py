"""What an evaluation says, in one sentence with a number, and its differences as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..report import Interval, Intervals
from .metrics import HIGHER_IS_BETTER, title_of
from .results import Evaluation, plus_minus


def short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, with as many parts before it as tell them apart."""
    most = max((len(Path(path).parts) for path in paths), default=1)
    for count in range(1, most + 1):
        names = ["/".join(Path(path).parts[-count:]) for path in paths]
        if len({*names}) == len({*paths}):
            return names
    return list(paths)


def answer_of(evaluation: Evaluation) -> str:
    """The sentence: of the first score, and of the folder that is best beside the first one."""
    name = next(iter(evaluation.rows[0].scores))
    title, names = title_of(name, evaluation.features), short_names([row.samples for row in evaluation.rows])
    base, *others = evaluation.rows
    if not others:
        score = base.scores[name]
        return f"{title} of `{names[0]}` is {plus_minus(score.value, score.spread)}, {base.count:,} images."
    sign = -1 if name in HIGHER_IS_BETTER else 1
    best = min(others, key=lambda row: sign * row.scores[name].value)
    among = f"Best of {len(others)}: " if len(others) > 1 else ""
    score, of = best.scores[name], f"{title}, {best.count:,} images"
    assert score.difference is not None
    told = compare_in_words(score.difference, score.interval, base=names[0], of=of, higher_is_better=sign < 0)
    known = dict(zip([row.samples for row in evaluation.rows], names, strict=True))
    return f"{among}`{known[best.samples]}` is {told}"


def compare_in_words(
    difference: float, interval: Sequence[float] | None, *, base: str, of: str, higher_is_better: bool
) -> str:
    """How a score differs from that of ``base``, behind a name and "is"; ``of`` says of which score and images."""
    if interval is None:
        return f"{difference:+.3g} from `{base}` ({of}; without an interval)."
    low, high = interval
    if low <= 0 <= high:
        return f"not told apart from `{base}`: {difference:+.3g}, 95 % {low:+.3g} to {high:+.3g} ({of})."
    ends = sorted((abs(low), abs(high)))
    word = "better" if (difference > 0) == higher_is_better else "worse"
    return f"{abs(difference):.3g} {word} than `{base}`, 95 % {ends[0]:.3g} to {ends[1]:.3g} ({of})."


def intervals_of(evaluation: Evaluation) -> Intervals | None:
    """The differences of the first score from the first folder; None where there are no intervals."""
    name = next(iter(evaluation.rows[0].scores))
    names = short_names([row.samples for row in evaluation.rows])
    rows = [
        Interval(
            name=short,
            value=score.difference,
            low=score.interval[0],
            high=score.interval[1],
            text=f"{score.difference:+.3g} ({score.interval[0]:+.3g} to {score.interval[1]:+.3g})",
            hover=row.samples,
        )
        for row, short in zip(evaluation.rows[1:], names[1:], strict=True)
        if (score := row.scores[name]).interval is not None and score.difference is not None
    ]
    if not rows:
        return None
    side = "right" if name in HIGHER_IS_BETTER else "left"
    title = title_of(name, evaluation.features)
    return Intervals(rows=rows, caption=f"Difference of {title} from `{names[0]}`, 95 % interval; {side} is better.")
