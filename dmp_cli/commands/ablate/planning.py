"""From the options of ``dmp ablate`` to the plan they ask for, with all that can be refused said at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...config import (
    AblateOptions,
    ArmSampling,
    ArmScoring,
    ArmTraining,
    CommonOptions,
    NegativeOptions,
    NetworkOptions,
    PatchConfig,
    TrainConfig,
    build,
    default_of,
)
from ...errors import ConfigError
from ..inner_options import (
    check_sampler,
    everywhere,
    given_of,
    identify_images,
    identify_network,
    network_options,
    precision,
    sampling_options,
)
from ..options import Given

if TYPE_CHECKING:
    from ...ablation import Arm, Plan
    from ...backbones import Backbone
    from ...data import ImageSource
    from ...pipeline import Loaded

_RESERVED = {"data", "steps", "seed", "dtype", "output", "resume", "backbone", "checkpoint", "log_every", "keep"}
_POINTS = {"table3": 5}
_PATCHED = ("dmp", "prompt-tuning")


class Request(NamedTuple):
    """One ablation as it was asked for."""

    arms: str  # a table's name, or a TOML file
    folder: Path
    options: AblateOptions
    training: ArmTraining
    sampling: ArmSampling
    scoring: ArmScoring
    network: NetworkOptions
    common: CommonOptions
    threads: int | None = None


def threads_of(request: Request) -> int | None:
    """The threads of every command: never a matter of how many run at once, and the same for the life of a folder."""
    import torch

    from ...improvement import settle_threads

    record = request.folder / "ablation.json"
    if request.options.force:
        record = record.with_name("none")  # a folder that is begun anew
    usual = 1 if request.network.is_digits else torch.get_num_threads()
    return settle_threads(record, asked=request.threads, usual=usual)


def plan_of(request: Request) -> tuple[Plan, dict[str, Any], Loaded]:
    """What is asked for, fingerprints of what it is asked of, and the backbone.

    Looks at the backbone and the data first.

    Raises:
        ConfigError: an arm that makes no run, or none of this backbone.
    """
    from ...ablation import DIGITS, OWN, Plan
    from ...data import Bounds, find_images
    from ...improvement import in_arguments

    arms = _read_arms(request)
    for arm in arms or ():
        _check_arm(arm, None)
    options, common = request.options, request.common
    if options.data is None and not request.network.is_digits:
        raise ConfigError("no data given", hint="Name a folder of images with --data.")
    images = None
    if options.data is not None:
        images = find_images(options.data, bounds=Bounds(follow_links=options.follow_links))
    backbone, loaded = _look(request)
    data = options.data or request.folder / DIGITS
    first = common.seed or 0
    plan = Plan(
        folder=request.folder,
        arms=arms if arms is not None else _named_arms(request.arms, backbone),
        backbone=network_options(request.network),
        data=data,
        reference=request.scoring.reference or data,
        steps=options.steps or default_of(TrainConfig, "steps"),
        points=options.points or _POINTS.get(request.arms, 1),
        seeds=range(first, first + options.seeds),
        num_images=options.num_images,
        training=_training(request),
        sampling=sampling_options(request.sampling, flow=backbone.schedule.flow),
        scoring=in_arguments(_scoring(request)),
        everywhere=everywhere(common),
        precision=precision(common),
        scales=options.scales,
    )
    for arm in plan.arms:
        _check_arm(arm, backbone)
    alone = [arm.method for arm in plan.arms if OWN not in arm.options]
    check_sampler(request.sampling, loaded, methods=alone)
    loaded = loaded or _load(request)
    check_sampler(request.sampling, loaded)
    plan = replace(plan, grey=_may_be_grey(request, loaded, images))
    return plan, _inputs(plan, loaded, request, images), loaded


def _may_be_grey(request: Request, loaded: Loaded, images: ImageSource | None) -> bool:
    """Whether training may turn pictures grey: with --grey, or in an ablation that was begun before there was --grey.

    Raises:
        ConfigError: it would have to, and may not.
    """
    if images is None or loaded.codec.image_channels != 1:
        return request.options.grey
    from ...data import look_at

    looks, begun = look_at(images), (request.folder / "ablation.json").exists()
    looks.check_colours(channels=1, allowed=request.options.grey or begun)
    return bool(looks.colourful)


def _training(request: Request) -> dict[str, Any]:
    training = request.training.model_dump(exclude_none=True) | _links(request)
    return {"flip": False, **training} if request.network.is_digits else training  # a mirrored digit is another one


def _scoring(request: Request) -> dict[str, Any]:
    if request.network.is_digits and request.scoring.features is None:
        scoring = request.scoring.model_copy(update={"features": "digits"})
    else:
        scoring = request.scoring
    return given_of(scoring, ("metrics", "features", "inception_weights")) | _links(request)


def _links(request: Request) -> dict[str, Any]:
    """--follow-links for training and scoring, where it was given."""
    return {"follow_links": True} if request.options.follow_links else {}


def _read_arms(request: Request) -> list[Arm] | None:
    """The arms of a TOML file; None for a table, whose arms depend on the backbone."""
    from ...ablation import OWN, TABLES, read_arms
    from ...config import nearest

    if request.arms in TABLES:
        return None
    if Path(request.arms).suffix != ".toml":
        raise ConfigError(f"{request.arms} is no table and no .toml file", hint=nearest(request.arms, TABLES))
    known = (TrainConfig.model_fields.keys() | PatchConfig.model_fields.keys() | {OWN}) - _RESERVED
    return read_arms(Path(request.arms), known=known, reserved=_RESERVED)


def _named_arms(named: str, backbone: Backbone) -> list[Arm]:
    from ...ablation import arms_of
    from ...config import CodecRecord
    from ...patching import create_patch

    patch = create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=backbone.sample_shape[1])
    blocks = len(patch.hidden_shapes)
    what = {"tokens": patch.grid is None, "reads_text": backbone.takes_text}
    return arms_of(named, num_blocks=blocks, num_prompts=patch.num_prompts, **what)


def _check_arm(arm: Arm, backbone: Backbone | None) -> None:
    """Raise ConfigError, naming the arm, for options that make no run, or none of this backbone."""
    from ...ablation import OWN

    try:
        given = Given({name: value for name, value in arm.options.items() if name != OWN})
        if OWN in arm.options:
            build(NegativeOptions, own_samples=arm.own_samples, method=arm.method)
        given.make(TrainConfig, data=Path("data"))
        if arm.method not in _PATCHED and (own := given.of(PatchConfig)):
            raise ConfigError(
                f"--method {arm.method} trains no patch, so {', '.join(sorted(own))} does not apply to it"
            )
        config = given.make(PatchConfig)
        if backbone is not None and backbone.takes_text and OWN in arm.options and arm.method == "full":
            raise ConfigError("a second backbone that reads text cannot be sampled against", hint="Use method lora.")
        if backbone is not None and arm.method in _PATCHED:
            from ...patching import check_variant

            check_variant(backbone, config)
    except ConfigError as error:
        where = "" if arm.line is None else f" (line {arm.line})"
        raise ConfigError(f"arm {arm.name}{where}: {error.message}", hint=error.hint) from error


def _look(request: Request) -> tuple[Backbone, Loaded | None]:
    """The backbone, its weights unread where its folder tells enough."""
    from ...pipeline import check_early

    seen = check_early(request.network, None)
    if seen is not None:
        return seen, None
    loaded = _load(request)
    return loaded.backbone, loaded


def _load(request: Request) -> Loaded:
    from ...pipeline import load_bare

    return load_bare(request.network, "cpu")


def _inputs(plan: Plan, loaded: Loaded, request: Request, images: ImageSource | None) -> dict[str, Any]:
    """What is compared, by fingerprint and digest: nothing of it may change between two calls."""
    data, links = "embedded digits" if images is None else images.fingerprint, request.options.follow_links
    same = plan.reference == plan.data
    reference = data if same else identify_images(plan.reference, follow_links=links)
    network = identify_network(loaded, prompts=request.sampling.prompts)
    return {"data": data, "reference": reference, **network}
