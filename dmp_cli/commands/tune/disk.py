"""What a search writes at most: trials and final, with the options at the ends of its ranges that write most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...config import JobOptions, NetworkOptions
from ..inner_needs import disk_of_commands

if TYPE_CHECKING:
    from ...tuning import Tuning

_RATES = ("lr", "gate_lr", "balance_importance", "balance_load", "weight_decay")  # which change no size


def disk_of_search(plan: Tuning, network: NetworkOptions, *, dmp: Any, jobs: JobOptions) -> dict[str, int]:
    """Bytes for each purpose, as of :func:`disk_of_commands`; where trials are there already, theirs are in it."""
    digits = plan.data == plan.digits and not plan.digits.exists()
    how: dict[str, Any] = {"dmp": dmp, "jobs": jobs, "digits": digits}
    corners = [{name: value for name, value in one.items() if name not in _RATES} for one in plan.ranges.corners()]
    different = {str(one): one for one in corners}.values()
    most = max(different, key=lambda one: sum(disk_of_commands(plan.trial_commands(0, one), network, **how).values()))
    commands = [command for number in range(plan.trials) for command in plan.trial_commands(number, most)]
    for seed in plan.final_seeds:
        commands += [*plan.final_commands(0, most, seed), *plan.final_commands(1, most, seed)]
    return disk_of_commands(commands, network, **how)
