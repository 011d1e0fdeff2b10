"""What ``dmp train`` does once its options are understood, in one process or in each of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from ...config import NetworkOptions, PatchConfig, TextStoreOptions, TrainConfig, TrainOptions
from ...errors import DivergedError
from ..console import Printer
from ..half_range import warn_of_fp16
from ..in_process import Onlooker
from ..processes import owning, together
from .captions import encode_early, every_caption
from .images import images_of_run, origin_record
from .settings import settings_of, with_recorded_grid

if TYPE_CHECKING:
    import torch

    from ...backbones import Backbone
    from ...data import ImageSource
    from ...pipeline import Loaded
    from ...runtime import World
    from ...training import Progress, RunFolder, RunState, Trainee

_COUNTED = 100_000  # captions that are looked at before the first step: some seconds


class Request(NamedTuple):
    """One training run as it was asked for."""

    run: RunFolder
    config: TrainConfig
    patch_config: PatchConfig | None  # None: the method trains no patch
    network: NetworkOptions
    options: TrainOptions
    texts: TextStoreOptions
    device: str | None  # as named; None: auto
    said: Mapping[str, Any]  # all options by name, as given now, before, or by the preset
    onlooker: Onlooker | None = None  # the command inside whose process this one runs
    backbone: Backbone | None = None  # loaded already, from Python; None: ``network`` says where it is
    on_step: Callable[[Progress], object] | None = None  # called after each step


def run_train(request: Request, printer: Printer) -> Trainee:
    """Train as ``request`` says, as one of the processes that were started together; what was trained."""
    with together(request.device, printer) as (world, device), owning(request.run.path, "dmp train", world):
        with printer.watching():  # the listing of the images
            job = Job(request, world, device, printer)
        try:
            job.train(job.begin())
        except DivergedError as error:
            if request.onlooker is not None:
                request.onlooker.diverged = error.message
            raise
        return job.trainee


class Job:
    """One process' part of a run: everything is checked before the first file is written."""

    def __init__(self, request: Request, world: World, device: torch.device, printer: Printer) -> None:
        from ...training import keeping_of, prepare
        from .held_out import divide
        from .latent_store import find_kept_latents, find_store
        from .shapes import find_shapes
        from .tracker_kinds import check_trackers

        request = request._replace(patch_config=with_recorded_grid(request))
        self.request, self.run, self.config = request, request.run, request.config
        self.world, self.device, self.printer = world, device, printer
        world.share(self.config.batch_size)
        if self.config.shard_backbone:
            world.check_spread()
        self.keeping = keeping_of(self.config)
        self.keeping.check(device)
        self.images = self._find_images()
        world.tell(self._refuse_existing)
        world.tell(lambda: check_trackers(request.options.trackers))
        self._load_with_captions()
        asked, backbone, codec = request.patch_config, self.loaded.backbone, self.loaded.codec
        self.trainee = prepare(self.config, backbone=backbone, codec=codec, patch_config=asked)
        self.looks = world.tell(self._look)
        self.kept, self.on_kept = find_kept_latents(self.images, self.trainee, self.config)
        store = None if self.kept else find_store(self.images, self.trainee, self.config)
        self.stores = [] if store is None else [(store, self.images)]
        # In every process alike: a later one would wait for ever for one that found an error.
        self.parts = divide(self.images, self.kept or store, self.trainee, self.config, world)
        self.shapes = find_shapes(self.parts.training, self.trainee, self.config, world)
        if self.shapes is not None:
            self.stores, self.parts = self.shapes.stores, self.parts._replace(reader=self.shapes.reader)
        self.settings = self._settings()

    def _settings(self) -> dict[str, Any]:
        """The resolved config.json of the run."""
        from ...training import images_record

        settings = settings_of(self.request, self.loaded, self.trainee)
        settings["images"] = images_record(self.images)
        settings |= {**origin_record(self.images), "text_store": self.captions.dtype}
        settings |= {} if self.shapes is None else {"buckets": self.shapes.counts}
        if self.parts.held_out is not None:
            settings["held_out"] = images_record(self.parts.held_out[0])
        return settings

    def _find_images(self) -> ImageSource:
        from ...pipeline import check_early
        from ...training import check_captions, check_noise
        from .early import check_options_early

        recorded = self.run.read_images() if self.request.options.resume else None
        images = images_of_run(self.config, download=self.request.network.download, recorded=recorded)
        if self.request.patch_config is not None:
            check_noise(self.config, self.request.patch_config)
        is_here = self.request.backbone is not None
        self.peeked = None if is_here else check_early(self.request.network, self.request.patch_config)
        warn_of_fp16(self.config.dtype, self.request.backbone or self.peeked, self.printer)
        if self.peeked is not None:
            check_captions(images, self.peeked)
        check_options_early(self.config, self.request.network)
        return images

    def _refuse_existing(self) -> None:
        """Raise ConfigError where the output is in use: before the weights are read, which may take minutes."""
        asked, options = self.request.patch_config, self.request.options
        known = {"train": self.config.model_dump(mode="json"), "patch": asked and asked.model_dump()}
        self.run.refuse_existing(known, resume=options.resume, force=options.force)

    def _load_with_captions(self) -> None:
        """The backbone, with captions that are encoded before its weights need the memory."""
        how: dict[str, Any] = {"world": self.world, "device": self.device, "printer": self.printer}
        self.captions = encode_early(self.request, self.images, self.peeked, **how)
        self.loaded = self.load()
        self.captions.give(self.loaded.backbone)

    def load(self) -> Loaded:
        """The backbone and its codec, which go with the data. Raises as :func:`~dmp_cli.pipeline.load_bare`."""
        import torch

        from ...pipeline import load_bare, load_fresh, with_codec
        from ...training import check_conditions

        # Where the weights are to be spread, kept in few bits or in main memory, no device ever holds all of them.
        device = torch.device("cpu") if self.config.shard_backbone or self.keeping.packs else self.device
        if self.request.backbone is not None:
            loaded = with_codec(self.request.backbone, self.request.network)
        elif self.config.method == "scratch":
            classes = len(self.images.classes)
            loaded = load_fresh(self.request.network, device, data_classes=classes, seed=self.config.seed)
        else:
            loaded = load_bare(self.request.network, device)
        check_conditions(self.images, loaded.backbone)
        return loaded

    def _look(self) -> str:
        """What is trained on, in a line. Raises ConfigError where colours would be lost, unless --grey allows it."""
        from ...data import describe_classes, look_at
        from ...latents import image_size

        options, loaded, images = self.request.options, self.loaded, self.images
        looks, channels = look_at(images, max_pixels=self.config.max_pixels), loaded.codec.image_channels
        goes_on = options.resume and self.run.config_file.exists()  # it was allowed when the run began
        looks.check_colours(channels=channels, allowed=options.grey or goes_on)
        size = None if self.config.buckets else image_size(loaded.codec, loaded.backbone)
        told = looks.in_words(image_size=size, channels=channels)
        return told + (f"; {describe_classes(images.classes)}" if images.classes else "")

    def begin(self) -> RunState | None:
        """Claim the run's folder; the state to go on from, None: from the start. The same in every process."""
        from ...data import describe_kinds, hint_for_kinds

        world, options = self.world, self.request.options
        world.agree({name: value for name, value in self.settings.items() if name != "options"})
        world.tell(lambda: self.run.open(self.settings, resume=options.resume, force=options.force))
        state = world.tell(lambda: self.run.load_state(warn=self.printer.warn) if options.resume else None)
        world.tell(lambda: self.run.warn_of_damaged_log(warn=self.printer.warn))
        if state is None:
            self._warn_of_long_captions()
        else:
            self.printer.note(f"continuing {self.run.path} after step {state.step}")
        of_shapes = () if self.shapes is None else self.shapes.remarks
        for remark in filter(None, (*self.loaded.backbone.remarks, self.looks, self.on_kept, *of_shapes)):
            self.printer.note(remark)
        if self.images.passed_over:
            kinds = self.images.passed_over
            self.printer.warn(f"{self.images.path}: {describe_kinds(kinds)}. {hint_for_kinds(kinds)}")
        count, images = self.trainee.num_learnt, len(self.parts.training)
        how = self.config.dtype + (f", {world.size} processes" if world.size > 1 else "")
        method = self.config.method
        self.printer.note(f"{method}: {count:,} parameters learnt, {images:,} images, {self.device}, {how}")
        if self.parts.held_out is not None:
            self.printer.note(f"{len(self.parts.held_out[0]):,} images are held out, {self.config.val_draws:,} draws")
        return state

    def _warn_of_long_captions(self) -> None:
        """Say how many captions are longer than the text encoder reads, with an example."""
        from ...sampling import find_long

        backbone = self.loaded.backbone
        if backbone.takes_text and self.world.is_first:
            long = find_long(islice(self.images.every_caption(), _COUNTED), backbone)
            if long.found:
                self.printer.warn(long.in_words("captions"))

    def train(self, state: RunState | None) -> None:
        """Fill the latent store, train, and say what was written."""
        from ...runtime import StopRequest
        from ...training import naming_checkpoint, train
        from .ending import report
        from .latent_store import fill_store
        from .sample_grids import grids_of
        from .trackers import tracked_job
        from .watchers import Watchers

        config, printer, onlooker = self.config, self.printer, self.request.onlooker
        with ExitStack() as ended, StopRequest(speaks=self.world.is_first) as request, naming_checkpoint(self.run):
            self.captions.encode(self.loaded.backbone, every_caption(self.images, self.config))
            for store, images in self.stores:
                fill_store(store, images, self.trainee, config, self.device, printer, request)
            trackers = ended.enter_context(tracked_job(self, goes_on=state is not None))
            how: dict[str, Any] = {"trackers": trackers, "world": self.world, "is_watched": onlooker is None}
            watchers = Watchers(self.run, self.trainee, config, printer, grids=grids_of(self, trackers), **how)
            steps = train(
                self.trainee,
                images=self.parts.training,
                config=config,
                run=self.run,
                state=state,
                stop=lambda: request.number,
                foretell=request.foretell,
                fresh=watchers.grids.begin,
                begun=watchers.catch_up,
                store=self.parts.reader,
                held_out=self.parts.held_out,
                judge=None if onlooker is None else onlooker.judge,
                world=self.world,
                device=self.device,
            )
            with printer.progress("train", config.steps, done=state.step if state else 0) as advance:
                for event in steps:
                    watchers.see(event)
                    advance(event.step, watchers.remark)
                    if self.request.on_step is not None:
                        self.request.on_step(event)
        if self.world.is_first:
            report(self.run, self.trainee, config, watchers, printer, network=self.request.network)
