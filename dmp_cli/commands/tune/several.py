"""``dmp tune --jobs``: several processes of this command share the trials, and stay to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...config import CommonOptions, JobOptions
from ...improvement import in_arguments
from ..at_once import run_jobs
from ..console import Printer
from ..options import Given

if TYPE_CHECKING:
    from ...tuning import Tuning

# What the command that starts them does itself, or says of itself.
_OWN = {"jobs", "cluster", "force", "wait", "dry_run", "json_", "verbose", "quiet"}


def run_workers(plan: Tuning, given: Given, printer: Printer, *, dmp: Any) -> None:
    """Let as many processes as were asked for do the search and its final; none where one is enough."""
    from ...jobs import Job

    options = given.make(JobOptions)
    if options.cluster is None and (options.jobs or 1) == 1:
        return
    count = min(options.jobs or plan.round_size or plan.trials, plan.trials)
    if plan.round_size is None:
        printer.note("what is proposed depends on which trials end first; with --round-size it does not")
    command = ["tune", *in_arguments({key: value for key, value in given.values.items() if key not in _OWN}), "--wait"]
    jobs = [
        Job(number, f"worker {number + 1}", f"worker {number + 1}", None, frozenset(), lambda: command, done=False)
        for number in range(count)
    ]
    device = given.make(CommonOptions).device
    run_jobs(jobs, options, printer, folder=plan.folder, title="tune", dmp=dmp, device=device)
