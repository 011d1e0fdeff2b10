"""What a search needs at most: trials and final, with the options at the ends of its ranges that need most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...config import JobOptions
from ..inner_needs import InnerNeeds

if TYPE_CHECKING:
    from ...tuning import Tuning

_RATES = ("lr", "gate_lr", "balance_importance", "balance_load", "weight_decay")  # which change no size


def needs_of_search(
    plan: Tuning, needs: InnerNeeds, *, jobs: JobOptions
) -> tuple[dict[str, int], dict[str, int | None]]:
    """Bytes on the disk for each purpose, where trials are there already with theirs in it; and the memory."""
    digits = plan.data == plan.digits and not plan.digits.exists()
    sizes = [{name: value for name, value in one.items() if name not in _RATES} for one in plan.ranges.corners()]
    corners = list({str(one): one for one in sizes}.values())
    memory = needs.memory([command for one in corners for command in plan.trial_commands(0, one)])
    most = max(corners, key=lambda one: sum(needs.disk(plan.trial_commands(0, one), jobs=jobs, digits=digits).values()))
    commands = [command for number in range(plan.trials) for command in plan.trial_commands(number, most)]
    for seed in plan.final_seeds:
        commands += [*plan.final_commands(0, most, seed), *plan.final_commands(1, most, seed)]
    return needs.disk(commands, jobs=jobs, digits=digits), memory
