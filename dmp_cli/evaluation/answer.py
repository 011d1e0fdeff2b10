"""What an evaluation says, in one sentence with a number, and its differences as a chart."""

from __future__ import annotations

from ..report import Interval, Intervals, compare_in_words, short_names, span_in_words
from .few_images import few_in
from .metrics import HIGHER_IS_BETTER, title_of
from .results import Evaluation, plus_minus


def answer_of(evaluation: Evaluation) -> str:
    """The sentence: of the first score, and of the folder that is best beside the first one."""
    name = next(iter(evaluation.rows[0].scores))
    title, names = title_of(name, evaluation.features), short_names([row.samples for row in evaluation.rows])
    base, *others = evaluation.rows
    few = name == "fid" and any(
        one.is_singular(evaluation.features_width) or one.is_biased for one in few_in(evaluation)
    )
    enough = ", too few" if few else ""
    if not others:
        score = base.scores[name]
        return f"{title} of `{names[0]}` is {plus_minus(score.value, score.spread)}, {base.count:,} images{enough}."
    sign = -1 if name in HIGHER_IS_BETTER else 1
    best = min(others, key=lambda row: sign * row.scores[name].value)
    among = f"Best of {len(others)}: " if len(others) > 1 else ""
    score, of = best.scores[name], f"{title}, {best.count:,} images{enough}"
    assert score.difference is not None
    told = compare_in_words(score.difference, score.interval, base=f"`{names[0]}`", of=of, higher_is_better=sign < 0)
    known = dict(zip([row.samples for row in evaluation.rows], names, strict=True))
    return f"{among}`{known[best.samples]}` is {told}"


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
            text=span_in_words(score.difference, score.interval),
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
