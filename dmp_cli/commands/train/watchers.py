"""What else happens as a run goes on: bad images named, trackers, a sample grid every so often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...config import TrainConfig
from ..console import Printer
from .first_losses import FirstLosses
from .gate_values import gate_values
from .pace import Pace
from .sample_grids import SampleGrids
from .trackers import Trackers

if TYPE_CHECKING:
    from ...runtime import World
    from ...training import HeldOutLoss, Progress, RunFolder, Trainee


class Watchers:
    """What else happens as a run goes on: bad images named, curves, sample grids."""

    def __init__(
        self,
        run: RunFolder,
        trainee: Trainee,
        config: TrainConfig,
        printer: Printer,
        *,
        trackers: Trackers,
        grids: SampleGrids,
        world: World,
        is_watched: bool = True,
    ) -> None:
        """``is_watched``: whether somebody may look at the page of the held-out loss before the run has ended."""
        self.run, self.trainee, self.config, self.printer = run, trainee, config, printer
        self.world, self.bad, self.is_watched = world, 0, is_watched
        self.remark = ""
        self.last_line: dict[str, Any] = {}
        self.step, self.ended, self.held_out = 0, "", ""
        self.last_held_out: HeldOutLoss | None = None
        self.pace = Pace(config.batch_size)
        self.first = FirstLosses(trainee) if config.method != "scratch" else None
        self.trackers, self.grids = trackers, grids

    def see(self, event: Progress) -> None:
        """Take note of one step."""
        self.step, self.ended = event.step, event.ended
        for message in event.bad:
            self.bad += 1
            self.printer.warn(f"skipped: {message}")
            if self.world.is_first:
                self.run.log({"step": event.step, "skipped": message})
        for remark in event.remarks:
            self.printer.warn(remark)
        if event.held_out is not None:
            self._see_held_out(event.step, event.held_out)
        suspicion = self.first.remark(event) if self.first is not None and self.world.is_first else None
        if suspicion is not None:
            self.printer.warn(suspicion)
        if not self.last_line:
            self.remark = self.pace.remark(event)
        if event.line is not None:
            self.last_line = event.line
            speed = f"{event.line['images_per_second']:.1f} images/s"
            self.remark = f"loss {event.line['loss']:.4f}  {self.held_out}{speed}"
            if event.line["skipped_steps"]:
                self.printer.warn(
                    f"{event.line['skipped_steps']} of the last steps skipped: loss or gradients not finite"
                )
            self.trackers.scalars(event.line, event.step)
            if self.trackers.are_there and not self.config.shard_backbone:  # whose weights all processes have to gather
                self.trackers.histograms(gate_values(self.trainee), event.step)
        self.grids.show(event.step)

    def _see_held_out(self, step: int, found: HeldOutLoss) -> None:
        """Put the held-out loss on the bar, to the trackers and on its page."""
        self.last_held_out, whole = found, found.whole
        change = "" if whole.difference is None else f" ({whole.difference:+.6f})"
        self.held_out = f"held out {whole.loss:.4f}{change}  "
        self.trackers.scalars({f"held_out/{name}": value for name, value in vars(whole).items()}, step)
        if self.is_watched or self.ended or step == self.config.steps:
            self._write_page()

    def _write_page(self) -> None:
        if not self.world.is_first or not self.config.holds_out:
            return
        from ...report import render
        from ...storage import write_text
        from ...training import PAGE, build_held_out_page

        page = build_held_out_page(self.run.held_out_lines(), method=self.config.method)
        write_text(self.run.path / PAGE, render(page))

    def catch_up(self, step: int) -> None:
        """Write what a kill may have prevented: the page so far, and the grid of the step that the run goes on from."""
        if self.config.holds_out and (self.is_watched or step == self.config.steps):
            self._write_page()
        if step > 0:
            self.grids.show(step)
