"""What else happens as a run goes on: bad images named, trackers, a sample grid every so often."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import Prompt, SampleConfig, TrainConfig, usual_sampler
from ..console import Printer
from .first_losses import FirstLosses
from .gate_values import gate_values
from .pace import Pace
from .trackers import Trackers

if TYPE_CHECKING:
    from ...runtime import World
    from ...training import HeldOutLoss, Progress, RunFolder, Trainee

_GRID = SampleConfig(num_images=16, batch_size=16, steps=50)


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
        world: World,
        is_watched: bool = True,
    ) -> None:
        """``is_watched``: whether somebody may look at the page of the held-out loss before the run has ended."""
        self.run, self.trainee, self.config, self.printer = run, trainee, config, printer
        self.world, self.bad, self.is_watched = world, 0, is_watched
        self.prompts: tuple[Prompt, ...] | None = None  # what sample grids show, for a backbone that reads text
        self.remark = ""
        self.last_line: dict[str, Any] = {}
        self.step, self.ended, self.held_out = 0, "", ""
        self.last_held_out: HeldOutLoss | None = None
        self.pace = Pace(config.batch_size)
        self.first = FirstLosses(trainee) if config.method != "scratch" else None
        self.trackers = trackers

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
        self._show(event.step)

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
            self._show(step)

    def _show(self, step: int) -> None:
        """Draw the sample grid of ``step`` if it is to have one and it is not there.

        It is a function of the step: of the learnt values after it, the seed and the backbone. So one that is there,
        drawn before a run was interrupted, is the one that would be drawn.
        """
        every = self.config.sample_every
        if not every or step % every:
            return
        from ...runtime import is_out_of_memory

        path = self.run.samples / f"step-{step:08d}.png"
        try:
            self._draw_missing(step, path)
        except (RuntimeError, MemoryError) as error:
            if self.config.shard_backbone or not is_out_of_memory(error):
                raise
            self.printer.warn(f"no sample grid of step {step}: its 16 images need more memory than there is")

    def _draw_missing(self, step: int, path: Path) -> None:
        if self.config.shard_backbone:  # the weights are spread over the processes, so all of them have to draw
            if not self.world.tell(path.exists):
                self._draw(step, path)
        elif self.world.is_first and not path.exists():
            self._draw(step, path)

    def _draw(self, step: int, path: Path) -> None:
        from ...report import draw_image_grid
        from ...sampling import resolve, sample
        from ...storage import write_bytes

        backbone = self.trainee.backbone
        changes: dict[str, Any] = {
            "guidance": 1.5 if backbone.has_null else backbone.embedded_guidance or 1.0,
            "seed": self.config.seed,
            "prompts": self.prompts,
        }
        changes["sampler"] = usual_sampler(backbone.schedule.flow) or _GRID.sampler
        changes["dtype"] = self.config.dtype  # frozen weights may be kept in it
        config = _GRID.model_copy(update=changes)
        (images,) = sample(
            self.trainee.denoiser, backbone=backbone, codec=self.trainee.codec, config=resolve(config, backbone)
        )
        if not self.world.is_first:
            return
        grid = draw_image_grid([image.pixels for image in images], rows=4, columns=4)
        write_bytes(path, grid)
        self.trackers.image("samples", grid, step)
