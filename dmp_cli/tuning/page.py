"""The page of a search: what it gained once chance is taken off, all trials, and how to train with what it found."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..evaluation import title_of
from ..report import Column, Page, Picture, Section, Table, draw_parallel, markdown_table
from ..version import __version__
from .answer import answer_of, intervals_of
from .journal import COMPLETE, Trial
from .outcome import Outcome
from .plan import LOSS, Tuning
from .ranges import Range, Ranges

_TICKS = 4  # of a column of numbers, at least its two ends


def build_tuning_page(plan: Tuning, outcome: Outcome, *, commands: Sequence[str], use: str, picture: bytes) -> Page:
    """Build the content of ``report.html``. ``use`` is the command that trains with the options found."""
    columns, rows = trial_table(plan, outcome)
    best = outcome.best.number
    trials = Section(
        heading="All trials",
        paragraphs=[
            "Each line is a trial, from its options on the left to what came of it on the right; dashed lines were "
            "ended early or failed. Trial 0 has the defaults. The values are those of the search: one seed, and the "
            "images that chose."
        ],
        pictures=[Picture(png=picture, alt=f"Options and {title(plan)} of {len(outcome.trials)} trials", wide=True)],
        table=Table(columns=columns, rows=rows, caption="The marked trial was taken.", best=frozenset({(best, 1)})),
    )
    found = Section(
        heading="What it found",
        paragraphs=["These options of `dmp train`, as `winner.toml` has them, and the command that trains with them:"],
        commands=f"{winner_toml(outcome, plan)}\n{use}",
    )
    made = Section(
        heading="How this page was made",
        paragraphs=["These commands ran. Any of them can be typed again."],
        commands="\n".join(commands),
    )
    images = "halves of what was held out" if plan.final_held_out is None else "two sets that were held out"
    return Page(
        title="A search over options",
        answer=answer_of(plan, outcome, score=title(plan)),
        intervals=intervals_of(plan, outcome, score=title(plan)),
        lead=" ".join(sentences(plan, outcome)),
        sections=[_result(plan, outcome), trials, found, made],
        provenance={
            "Seeds": f"{plan.seed} for all trials, {', '.join(map(str, plan.final_seeds))} for the final",
            "Images": f"the search and the final measured on {images}; none of them was trained on",
            "Steps": f"{plan.steps:,} in every run",
            "dmp": __version__,
        },
    )


def title(plan: Tuning) -> str:
    """What is made better, in words."""
    if plan.objective == LOSS:
        return "held-out loss"
    features = plan.scoring[plan.scoring.index("--features") + 1] if "--features" in plan.scoring else "inception"
    return title_of(plan.objective, features)


def sentences(plan: Tuning, outcome: Outcome) -> list[str]:
    """What came out, in sentences."""
    ended = sum(trial.state != COMPLETE for trial in outcome.trials)
    told = f", {ended} of them ended early" if ended else ""
    begun = f"{len(outcome.trials)} trials{told}, by {title(plan)}."
    final = outcome.final
    if final is None:
        return [begun, "No trial was better than the defaults, so there is nothing to measure again."]
    assert outcome.added is not None
    found = (
        f"In the search, trial {outcome.best.number} was better than the defaults by {outcome.searched:.3g}. On "
        f"{_seeds(plan)} and images that no trial saw, its gain is {final.mean:+.3g}{_interval(final.interval)}. "
        + (f"So choosing had added {outcome.added:.3g}." if outcome.added > 0 else "So choosing had added nothing.")
    )
    if final.bare is not None and sum(final.winner) / len(final.winner) >= final.bare:
        found += f" The bare network's loss there is {final.bare:.6g}: no training at all is as good."
    if final.interval is None:
        return [begun, found]
    if not final.excludes_zero:
        verdict = "The interval contains zero: no gain is shown."
    else:
        what = "the gain is there" if final.mean > 0 else "what was found is worse than the defaults"
        verdict = f"The interval excludes zero: {what}."
    return [begun, found, verdict]


def trial_table(plan: Tuning, outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """Column titles, and one row of text for each trial."""
    names = [one.name for one in plan.ranges.free]
    rows = []
    for trial in outcome.trials:
        value = "–" if trial.value is None else f"{plan.sign * trial.value:.6g}"
        state = trial.state if trial.state == COMPLETE or not trial.losses else f"{trial.state}, step {_last(trial)}"
        options = [_short(trial.options[name]) if name in trial.options else "default" for name in names]
        rows.append([str(trial.number), value, *options, state])
    return ["trial", title(plan), *(name.replace("_", "-") for name in names), "state"], rows


def gain_table(plan: Tuning, outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """Column titles, and rows: the gain that the search saw, that of the final, and what choosing had added."""
    final, best, first = outcome.final, outcome.best, outcome.trials[0]
    assert best.value is not None
    assert first.value is not None
    searched = [first.value * plan.sign, best.value * plan.sign]
    bare = None if final is None else final.bare
    blank, shown = ([], []) if bare is None else (["–"], [f"{bare:.6g}"])
    values = [f"{value:.6g}" for value in searched]
    rows = [[f"search, seed {plan.seed}", *blank, *values, f"{outcome.searched:+.3g}", "–"]]
    if final is not None:
        per_seed = zip(plan.final_seeds, final.defaults, final.winner, final.seeds, strict=True)
        for seed, before, after, gain in per_seed:
            rows.append([f"final, seed {seed}", *shown, f"{before:.6g}", f"{after:.6g}", f"{gain:+.3g}", "–"])
        means = [f"{sum(values) / len(values):.6g}" for values in (final.defaults, final.winner)]
        span = "–" if final.interval is None else "{:+.2g} to {:+.2g}".format(*final.interval)
        rows.append(["final, mean", *shown, *means, f"{final.mean:+.3g}", span])
        rows.append(["added by choosing", *blank, "–", "–", f"{outcome.added:+.3g}", "–"])
    return [
        "measured",
        *(["bare network"] if shown else []),
        "defaults",
        f"trial {best.number}",
        "gain",
        "95 % interval",
    ], rows


def winner_toml(outcome: Outcome, plan: Tuning) -> str:
    """The options of the best trial as a TOML file that ``dmp train --config`` takes."""
    return Ranges((), {**plan.ranges.fixed, **outcome.best.options}).in_toml()


def render_summary(plan: Tuning, outcome: Outcome) -> str:
    """The text of ``report.md``."""
    lines = ["# A search over options", "", *(f"{line}\n" for line in sentences(plan, outcome))]
    lines += [*markdown_table(*gain_table(plan, outcome)), "", _about_gain(plan, outcome), ""]
    lines += [*markdown_table(*trial_table(plan, outcome)), "", "```toml", winner_toml(outcome, plan).rstrip(), "```"]
    return "\n".join(lines) + "\n"


def draw_trials(plan: Tuning, outcome: Outcome) -> bytes:
    """Draw all trials as a parallel plot, the defaults and the best one marked. PNG."""
    trials, best = outcome.trials, outcome.best.number
    columns = [_column(one, [trial.options.get(one.name) for trial in trials]) for one in plan.ranges.free]
    values = [trial.value for trial in trials]
    low = min(value for value in values if value is not None)
    # One trial that went wild would press all others together.
    known = sorted(value for value in values if value is not None)
    high = min(known[-1], low + 4 * (known[len(known) // 2] - low) or known[-1])
    width = (high - low) or 1.0
    heights = [None if value is None else min(1.0, (value - low) / width) for value in values]
    ends = [(0.0, f"{plan.sign * low:.5g}"), (1.0, f"{plan.sign * high:.5g}{' +' if known[-1] > high else ''}")]
    columns.append(Column(title(plan), heights, ends if high > low else ends[:1]))
    marked = {0: "defaults"} if best == 0 else {0: "defaults", best: f"trial {best}"}
    return draw_parallel(columns, shades=heights, marked=marked)


def _column(one: Range, values: Sequence[object]) -> Column:
    name = one.name.replace("_", "-")
    if one.choices is not None:
        places = {choice: number / (len(one.choices) - 1) for number, choice in enumerate(one.choices)}
        heights = [None if value is None else places[value] for value in values]
        return Column(name, heights, [(place, _short(choice)) for choice, place in places.items()])
    ends = [math.log10(end) if one.log else end for end in (one.low, one.high)]

    def place_of(value: float) -> float:
        return ((math.log10(value) if one.log else value) - ends[0]) / (ends[1] - ends[0])

    heights = [place_of(value) if isinstance(value, (int, float)) else None for value in values]
    inner = [10**power for power in range(math.ceil(ends[0] - 1e-9), math.floor(ends[1] + 1e-9) + 1)] if one.log else []
    shown = inner if 2 <= len(inner) <= _TICKS + 2 else [one.low, one.high]
    return Column(name, heights, [(place_of(value), _short(value)) for value in shown])


def _result(plan: Tuning, outcome: Outcome) -> Section:
    columns, rows = gain_table(plan, outcome)
    return Section(
        heading="What the search gained",
        paragraphs=[_about_gain(plan, outcome)],
        table=Table(columns=columns, rows=rows, caption="A gain above zero is better than the defaults."),
    )


def _about_gain(plan: Tuning, outcome: Outcome) -> str:
    if outcome.final is None:
        return "The best of the trials has the defaults."
    return (
        "The best of many trials was chosen for its luck too, so its gain in the search is too large. Therefore winner "
        f"and defaults were trained again from {_seeds(plan)} that no trial had, and measured in pairs on images that "
        f"no trial saw. The interval is over {outcome.final.over}."
    )


def _seeds(plan: Tuning) -> str:
    return "1 seed" if len(plan.final_seeds) == 1 else f"{len(plan.final_seeds)} seeds"


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f" (95 % interval {ends[0]:+.3g} to {ends[1]:+.3g})"


def _last(trial: Trial) -> int:
    return max(trial.losses)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
