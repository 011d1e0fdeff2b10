"""What an improvement came to: the scale that was chosen, the scores of the result, and both in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..evaluation import HIGHER_IS_BETTER, describe_reference, plus_minus, title_of
from ..storage import read_json
from .choice import Choice, read_choice
from .road import Road

Scores = dict[str, dict[str, Any]]  # metric -> a score as report.json has it


@dataclass(frozen=True)
class Outcome:
    """The choice, and the scores of the backbone and of the result; without them no scale was better than none."""

    choice: Choice
    choosing: dict[str, Any]  # report.json of the choice
    scored: dict[str, Any] | None  # report.json of the result

    @property
    def base(self) -> Scores | None:
        """The scores of the backbone on the scoring half."""
        return None if self.scored is None else self.scored["rows"][0]["scores"]

    @property
    def result(self) -> Scores | None:
        """The scores of the result on the scoring half, with the paired difference from the backbone."""
        return None if self.scored is None else self.scored["rows"][1]["scores"]

    def title(self, metric: str) -> str:
        """The name that papers use for a score."""
        return title_of(metric, self.choosing["features"])

    def sentences(self) -> list[str]:
        """What came out, in words: the scale, the score, and what to beware of."""
        name, scale = self.title(self.choice.metric), self.choice.scale
        if scale is None or self.base is None or self.result is None:
            tried = ", ".join(f"{one:g}" for one in self.choice.scores)
            return [
                f"None of the scales {tried} has a better {name} than the backbone itself on the choosing half. "
                "Sample the backbone as it is, or try smaller --scales, more --own-samples or other --steps."
            ]
        return [self._verdict(name), *self.choice.untried]

    def _verdict(self, name: str) -> str:
        assert self.base is not None
        assert self.result is not None
        before, after = self.base[self.choice.metric], self.result[self.choice.metric]
        numbers = f"{plus_minus(before['value'], before['spread'])} to {plus_minus(after['value'], after['spread'])}"
        lead = f"Sampled against the negative with W = {self.choice.scale:g}, the {name} goes from {numbers}"
        if after["interval"] is None:
            return f"{lead}; without an interval nothing says whether that is chance."
        low, high = (f"{end:+.2f}" for end in after["interval"])
        span = f"the 95 % interval of the difference is {low} to {high}"
        if not after["excludes_zero"]:
            return f"{lead}: {span}, which contains zero, so that no gain is shown."
        is_better = (after["difference"] > 0) == (self.choice.metric in HIGHER_IS_BETTER)
        return f"{lead}, which is {'better' if is_better else 'WORSE'}: {span}."

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Column titles, and a row for the backbone and for the result, on the scoring half."""
        metrics = list(self.base or {})
        titles = [title for metric in metrics for title in (self.title(metric), f"Δ {self.title(metric)}")]
        names = ["backbone", f"W = {self.choice.scale or 0:g}"]
        rows = [_cells(name, scores) for name, scores in zip(names, (self.base, self.result), strict=True) if scores]
        return ["sampled", *titles], rows

    def choice_table(self) -> tuple[list[str], list[list[str]]]:
        """The same for the choosing half: the backbone, and each scale."""
        rows = self.choosing["rows"]
        metrics = list(rows[0]["scores"])
        titles = [title for metric in metrics for title in (self.title(metric), f"Δ {self.title(metric)}")]
        names = ["0", *(f"{scale:g}" for scale in self.choice.scores)]
        return ["W", *titles], [_cells(name, row["scores"]) for name, row in zip(names, rows, strict=True)]

    def references(self) -> dict[str, str]:
        """Both halves of the reference, with their counts and fingerprints."""
        found = {"Choosing half": describe_reference(self.choosing)}
        return found if self.scored is None else {**found, "Scoring half": describe_reference(self.scored)}


def read_outcome(road: Road) -> Outcome:
    """The outcome, from the reports that the commands of ``road`` wrote."""
    choice = read_choice(road.scores(chosen=False), road.scales)
    choosing = read_json(road.scores(chosen=False) / "report.json")
    scored = None if choice.scale is None else read_json(road.scores(chosen=True) / "report.json")
    return Outcome(choice, choosing, scored)


def _cells(name: str, scores: Scores) -> list[str]:
    cells = [name]
    for score in scores.values():
        cells.append(plus_minus(score["value"], score["spread"]))
        paired = score["difference"]
        cells.append("–" if paired is None else plus_minus(paired, score["difference_spread"], signed=True))
    return cells
