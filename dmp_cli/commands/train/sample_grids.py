"""The sample grids of a run: every so often 16 images, each beside the base's image of the same noise.

A grid is a function of the step: of the learnt values after it, the seed and the backbone. The base's images are drawn
once, with the first grid, and kept in memory; a continued run draws them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import Prompt, SampleConfig, TrainConfig, usual_sampler
from .captions import first_captions
from .trackers import Trackers

if TYPE_CHECKING:
    import numpy as np

    from ...runtime import World
    from ...training import RunFolder, Trainee
    from .job import Job

_GRID = SampleConfig(num_images=16, batch_size=16, steps=50)
_ROWS, _COLUMNS = 4, 4
_LAYOUT, PAIRS = "sample_grids", "pairs"  # in config.json; a run that was begun before there were pairs has none


class SampleGrids:
    """Draws the grids of one run: in pairs, base left and learnt right, or as the run was begun."""

    def __init__(
        self,
        run: RunFolder,
        trainee: Trainee,
        config: TrainConfig,
        *,
        trackers: Trackers,
        world: World,
        warn: Callable[[str], None],
        is_paired: bool = True,
        prompts: tuple[Prompt, ...] | None = None,
    ) -> None:
        """``prompts`` are what the images show, for a backbone that reads text."""
        self.run, self.trainee, self.config = run, trainee, config
        self.trackers, self.world, self._warn = trackers, world, warn
        self.is_paired, self._prompts = is_paired, prompts
        self._base: list[np.ndarray] | None = None  # the base's images, uint8 (H, W, C)

    def begin(self) -> None:
        """Draw the base's images where only now the network is the base: its own weights are trained from here on."""
        if self.is_paired and not self.trainee.is_frozen and self._is_left():
            told = "sample grids show no base: its 16 images need more memory than there is"
            self._where_there_is_memory(self._draw_base, told)

    def _is_left(self) -> bool:
        """Whether a grid of the run is still to be drawn."""
        every, steps = self.config.sample_every, self.config.steps
        numbers = range(every, steps + 1, every) if every else ()
        return self.world.is_first and any(not self._path(step).exists() for step in numbers)

    def show(self, step: int) -> None:
        """Draw the grid of ``step`` if it is to have one and it is not there.

        One that is there, drawn before a run was interrupted, is the one that would be drawn.
        """
        every = self.config.sample_every
        if every and step % every == 0:
            told = f"no sample grid of step {step}: its 16 images need more memory than there is"
            self._where_there_is_memory(lambda: self._draw_missing(step, self._path(step)), told)

    def _path(self, step: int) -> Path:
        return self.run.samples / f"step-{step:08d}.png"

    def _where_there_is_memory(self, draw: Callable[[], None], told: str) -> None:
        """Call ``draw``, or say what is missing."""
        from ...runtime import is_out_of_memory

        try:
            draw()
        except (RuntimeError, MemoryError) as error:
            if self.config.shard_backbone or not is_out_of_memory(error):
                raise
            self._warn(told)

    def _draw_missing(self, step: int, path: Path) -> None:
        if self.config.shard_backbone:  # the weights are spread over the processes, so all of them have to draw
            if not self.world.tell(path.exists):
                self._draw(step, path)
        elif self.world.is_first and not path.exists():
            self._draw(step, path)

    def _draw(self, step: int, path: Path) -> None:
        from ...storage import write_bytes

        learnt = self._sample()
        if self.is_paired and self._base is None and self.trainee.is_frozen:
            self._draw_base()
        if not self.world.is_first:
            return
        grid = _picture(learnt, self._base, name="patched" if self.trainee.file_stem == "patch" else "trained")
        write_bytes(path, grid)
        self.trackers.image("samples", grid, step)

    def _draw_base(self) -> None:
        from ...training import bare

        with bare(self.trainee):
            self._base = self._sample()

    def _sample(self) -> list[np.ndarray]:
        """The images of the network as it is now, uint8 (H, W, C), of noise that the seed fixes."""
        from ...sampling import resolve, sample

        backbone = self.trainee.backbone
        changes: dict[str, Any] = {
            "guidance": 1.5 if backbone.has_null else backbone.embedded_guidance or 1.0,
            "seed": self.config.seed,
            "prompts": self._prompts,
        }
        changes["sampler"] = usual_sampler(backbone.schedule.flow) or _GRID.sampler
        changes["dtype"] = self.config.dtype  # frozen weights may be kept in it
        config = resolve(_GRID.model_copy(update=changes), backbone)
        (images,) = sample(self.trainee.denoiser, backbone=backbone, codec=self.trainee.codec, config=config)
        return [image.pixels for image in images]


def layout_of(recorded: Mapping[str, Any] | None) -> dict[str, str]:
    """What config.json says of the layout; ``recorded`` is that of the run that goes on, None: a run begins."""
    layout = PAIRS if recorded is None else recorded.get(_LAYOUT)
    return {} if layout is None else {_LAYOUT: layout}


def grids_of(job: Job, trackers: Trackers) -> SampleGrids:
    """The sample grids of a job of ``dmp train``."""
    prompts = first_captions(job.images) if job.loaded.backbone.takes_text else None
    how: dict[str, Any] = {"trackers": trackers, "world": job.world, "warn": job.printer.warn, "prompts": prompts}
    how["is_paired"] = job.settings.get(_LAYOUT) == PAIRS
    return SampleGrids(job.run, job.trainee, job.config, **how)


def _picture(learnt: list[np.ndarray], base: list[np.ndarray] | None, *, name: str) -> bytes:
    """The images alone, or in pairs of columns: base left, learnt right, of the same noise."""
    from ...report import draw_image_grid

    if base is None:
        return draw_image_grid(learnt, rows=_ROWS, columns=_COLUMNS)
    pairs = [image for pair in zip(base, learnt, strict=True) for image in pair]
    return draw_image_grid(pairs, rows=_ROWS, columns=2 * _COLUMNS, heads=["base", name] * _COLUMNS)
