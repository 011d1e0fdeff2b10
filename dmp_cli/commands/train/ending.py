"""What a training says at its end: what was learnt, how good it is, and the next command to type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...config import NetworkOptions, TrainConfig
from ..console import Printer
from ..in_process import in_shell

if TYPE_CHECKING:
    from ...training import RunFolder, Trainee
    from .watchers import Watchers


def report(
    run: RunFolder,
    trainee: Trainee,
    config: TrainConfig,
    watchers: Watchers,
    printer: Printer,
    *,
    network: NetworkOptions,
) -> None:
    """Print three lines, or the result of --json."""
    written = run.learnt_file(trainee)
    steps = watchers.step or config.steps
    if watchers.ended:
        printer.say(f"ended after step {watchers.step}: {watchers.ended}")
    averaged = f" and {run.learnt_file(trainee, ema=True).name}" if config.ema else ""
    printer.say(f"wrote {written}{averaged}: {trainee.num_learnt:,} parameters, {steps:,} steps")
    if (loss := _in_words(watchers)) is not None:
        printer.say(loss)
    printer.say(f"next: {in_shell(_next_command(str(written), config, network))}")
    if watchers.bad:
        printer.warn(f"{watchers.bad} unreadable images were skipped")
    printer.result(
        {
            "output": str(written),
            "run": str(run.path),
            "steps": steps,
            "parameters": trainee.num_learnt,
            "skipped_images": watchers.bad,
            "last": watchers.last_line,
        }
    )


def _in_words(watchers: Watchers) -> str | None:
    """The newest held-out loss beside the bare network's; without one, the loss of training, which says less."""
    found = watchers.last_held_out
    if found is None:
        last = watchers.last_line.get("loss")
        return None if last is None else f"loss {last:.4f} on the images trained on; --val-split holds some out"
    whole = found.whole
    if whole.difference is None or whole.interval is None:
        return f"held-out loss {whole.loss:.6f}"
    low, high = whole.interval
    compared = "better than" if high < 0 else "worse than" if low > 0 else "not told apart from"
    return (
        f"held-out loss {whole.loss:.6f}, {compared} the backbone's {whole.base:.6f}: {whole.difference:+.6f} "
        f"(95 % {low:+.6f} to {high:+.6f})"
    )


def _next_command(written: str, config: TrainConfig, network: NetworkOptions) -> list[str]:
    """What draws images with what was learnt."""
    draw = ["sample", "-n", "16"]
    if config.method in ("dmp", "prompt-tuning"):
        return [draw[0], "--patch", written, *draw[1:]]
    if config.method in ("full", "scratch"):
        return [draw[0], "--backbone", written, *draw[1:]]
    from ...improvement import in_arguments

    said = in_arguments(network.model_dump(mode="json", exclude_defaults=True))  # an adapter does not know its backbone
    return [draw[0], *said, "--adapter", written, *draw[1:]]
