"""From the options of ``dmp tune`` to the search they ask for, with all that can be refused said at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from ...config import (
    ArmSampling,
    CommonOptions,
    EvalConfig,
    NetworkOptions,
    PatchConfig,
    TrainConfig,
    TuneImages,
    TuneOptions,
    TuneScoring,
    TuneTraining,
    build,
    default_of,
)
from ...errors import ConfigError
from ..inner_options import (
    check_sampler,
    everywhere,
    given_of,
    network_options,
    precision,
    sampling_options,
)
from ..options import Given
from .images import about_of

if TYPE_CHECKING:
    from ...backbones import Backbone
    from ...pipeline import Loaded
    from ...tuning import Ranges, Tuning

_RESERVED = {
    *("data", "steps", "seed", "dtype", "output", "resume", "force", "device", "backbone", "checkpoint", "vae"),
    *("log_every", "save_every", "sample_every", "keep", "keep_best", "patience", "follow_links", "grey"),
    *("val_data", "val_split", "val_part", "val_seed", "val_every", "val_draws", "val_losses"),
}
_SPLIT, _DIGIT_STEPS = 0.2, 500
_PATCHED = ("dmp", "prompt-tuning")


class Request(NamedTuple):
    """One search as it was asked for."""

    options: TuneOptions
    images: TuneImages
    training: TuneTraining
    sampling: ArmSampling
    scoring: TuneScoring
    network: NetworkOptions
    common: CommonOptions

    @property
    def inputs(self) -> list[Path]:
        """The files and folders of the user that are read."""
        named = [self.options.data, self.options.ranges, self.images.val_data, self.images.final_data]
        named += [self.scoring.reference, self.network.checkpoint, self.sampling.prompts]
        network = [None if self.network.is_digits else self.network.backbone, self.network.vae, self.network.text]
        named += [Path(name) for name in network if name is not None]
        return [path for path in named if path is not None and path.exists()]


def tuning_of(request: Request) -> tuple[Tuning, dict[str, Any], Loaded]:
    """The search that is asked for, what it is about (settings, and fingerprints of what it reads), and the backbone.

    Looks at the ranges first, then at the backbone, then at the images.

    Raises:
        ConfigError: no backbone or data, a range without such an option or of none of its values, or seeds that are
            those of the trials.
        DataError: images that choose, or that are trained on, are among those of the final.
    """
    from ...pipeline import load_bare
    from ...tuning import DIGITS, Tuning

    options, common, network = request.options, request.common, request.network
    if network.name is None:
        raise ConfigError("no backbone given", hint="Name the model with --backbone.")
    if options.data is None and not network.is_digits:
        raise ConfigError("no data given", hint="Name a folder of images with --data.")
    ranges, seeds = _ranges_of(request), _seeds_of(request)
    _check_ranges(ranges, None, options.ranges)
    loaded = load_bare(network, "cpu")
    _check_ranges(ranges, loaded.backbone, options.ranges)
    data = options.data or options.output / DIGITS
    held_out, final_held_out = _held_out_of(request)
    plan = Tuning(
        folder=options.output,
        ranges=ranges,
        trials=options.trials,
        objective=options.by,
        backbone=network_options(network),
        data=data,
        held_out=held_out,
        final_held_out=final_held_out,
        steps=options.steps or (_DIGIT_STEPS if network.is_digits else default_of(TrainConfig, "steps")),
        seed=common.seed or 0,
        final_seeds=seeds,
        draws=request.images.val_draws,
        prune=options.prune,
        training=_training_of(request),
        **({} if options.by == "loss" else _judging_of(request, data, loaded)),
        everywhere=everywhere(common),
        precision=precision(common),
        grey=options.grey,
        round_size=options.round_size,
    )
    _check_drawing(request, plan, loaded)
    return plan, about_of(plan, request, loaded), loaded


def _judging_of(request: Request, data: Path, loaded: Loaded) -> dict[str, Any]:
    """How a search by a score draws samples and scores them."""
    return {
        "sampling": sampling_options(request.sampling, flow=loaded.backbone.schedule.flow),
        "scoring": _scoring_of(request, data, loaded),
        "reference": request.scoring.reference or data,
        "num_images": request.images.num_images,
    }


def _check_drawing(request: Request, plan: Tuning, loaded: Loaded) -> None:
    """Raise ConfigError for a sampler that cannot draw what the trials train, where they are scored."""
    varied = [value for one in plan.ranges.free if one.name == "method" for value in one.choices or ()]
    methods = varied or [plan.ranges.fixed.get("method", plan.training.get("method"))]
    if plan.objective != "loss":
        check_sampler(request.sampling, loaded, methods=methods)


def defaults_of(ranges: Ranges) -> dict[str, Any]:
    """The default of each option that is varied, None where there is none."""
    return {one.name: _default(one.name) for one in ranges.free}


def check_options(options: dict[str, Any], backbone: Backbone | None) -> None:
    """Raise ConfigError for options that make no run, or none of this backbone."""
    given = Given(options)
    config = given.make(TrainConfig, data=Path("data"))
    if config.method not in _PATCHED:
        if own := given.of(PatchConfig):
            raise ConfigError(
                f"--method {config.method} trains no patch, so {', '.join(sorted(own))} does not apply to it"
            )
        return
    patch = given.make(PatchConfig)
    if backbone is not None:
        from ...patching import check_variant
        from ...training import check_noise

        check_noise(config, patch)
        check_variant(backbone, patch)


def _default(name: str) -> Any:
    record = TrainConfig if name in TrainConfig.model_fields else PatchConfig
    return default_of(record, name)


def _ranges_of(request: Request) -> Ranges:
    from ...tuning import default_ranges, read_ranges

    if request.options.ranges is None:
        return default_ranges()
    fields = {**TrainConfig.model_fields, **PatchConfig.model_fields}
    known = {name: _number_of(field.annotation) for name, field in fields.items() if name not in _RESERVED}
    return read_ranges(request.options.ranges, known=known, reserved=_RESERVED)


def _number_of(annotation: Any) -> type | None:
    """int or float for an option that is such a number, None for others."""
    kinds = {annotation, *get_args(annotation)} - {type(None)}
    return next((kind for kind in (int, float) if kind in kinds), None)


def _check_ranges(ranges: Ranges, backbone: Backbone | None, path: Path | None) -> None:
    """Raise ConfigError where an end of a range, or a choice, makes no run together with others."""
    for options in ranges.corners():
        try:
            check_options(options, backbone)
        except ConfigError as error:
            where = "the ranges" if path is None else str(path)
            told = [one for one in ranges.free if f"--{one.name.replace('_', '-')}" in error.message]
            line = f", line {told[0].line}" if told and told[0].line else ""
            raise ConfigError(f"{where}{line}: {error.message}", hint=error.hint) from error


def _seeds_of(request: Request) -> tuple[int, ...]:
    first, given = request.common.seed or 0, request.images.final_seeds
    seeds = given or (first + 1, first + 2, first + 3)
    if first in seeds:
        raise ConfigError(
            f"--final-seeds {','.join(map(str, seeds))}: seed {first} would choose and score: it is that of the trials",
            hint="Give other seeds to the final, or another one with --seed.",
        )
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--final-seeds {','.join(map(str, seeds))}: a seed stands twice")
    return seeds


def _held_out_of(request: Request) -> tuple[list[str], list[str] | None]:
    """The options that hold images out for the search, and for the final; None: the final has a part of the same."""
    images = request.images
    if images.val_data is not None and images.val_split is not None:
        raise ConfigError("--val-data and --val-split: give one of both")
    if images.val_data is None:
        share = _SPLIT if images.val_split is None else images.val_split
        if not 0 < share < 1:
            raise ConfigError(f"--val-split {share:g}: give a share between 0 and 1")
        held_out = ["--val-split", f"{share:g}"]
        if images.final_data is not None:
            # The final trains on what the trials train on: so it holds out the same part, and measures elsewhere.
            raise ConfigError(
                "--final-data needs images that choose beside it", hint="Name them with --val-data, or leave both out."
            )
        return held_out, None
    held_out = ["--val-data", str(images.val_data)]
    return held_out, None if images.final_data is None else ["--val-data", str(images.final_data)]


def _training_of(request: Request) -> dict[str, Any]:
    given = request.training.model_dump(exclude_none=True)
    links = {"follow_links": True} if request.options.follow_links else {}
    return {**({"flip": False} if request.network.is_digits else {}), **given, **links}


def _scoring_of(request: Request, data: Path, loaded: Loaded) -> list[str]:
    """The options of ``dmp eval``. Raises now what scoring would raise after hours."""
    from ...evaluation import check_scoring
    from ...improvement import in_arguments
    from ...latents import image_size

    given = given_of(request.scoring, ("features", "inception_weights", "feature_weights"))
    if request.network.is_digits:
        given.setdefault("features", "digits")
    if request.options.follow_links:
        given["follow_links"] = True
    reference = request.scoring.reference or data
    words: dict[str, Any] = {"metrics": request.options.by, **given}
    config = build(EvalConfig, samples=(Path("samples"),), reference=reference, **words)
    parts = None if request.options.data is None and request.scoring.reference is None else 2
    check_scoring(config, image_size=image_size(loaded.codec, loaded.backbone), parts=parts)
    return in_arguments(given)
