"""From the options of ``dmp improve`` to the road they ask for, with all that can be refused said at once."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...config import (
    CommonOptions,
    EvalConfig,
    ImproveOptions,
    ImproveSampling,
    ImproveScoring,
    NegativeOptions,
    NetworkOptions,
    build,
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

if TYPE_CHECKING:
    from ...improvement import CommandFolder, Road
    from ...pipeline import Loaded

_TEXT_GUIDANCE = 7.5  # where text is read, samples without guidance are not what anybody draws
_ONLY_FOR = {"lora_rank": ("lora", "dora")}  # options of the negative -> the methods they belong to
_TRAINING = ("batch_size", "lr", "micro_batch_size")


class Request(NamedTuple):
    """One improvement as it was asked for."""

    options: ImproveOptions
    negative: NegativeOptions
    sampling: ImproveSampling
    scoring: ImproveScoring
    network: NetworkOptions
    common: CommonOptions
    threads: int | None = None

    @property
    def inputs(self) -> list[Path]:
        """The files and folders of the user that are read."""
        network, scoring = self.network, self.scoring
        named = [None if network.is_digits else network.backbone, network.checkpoint, network.vae, network.text]
        named += [self.options.reference, self.sampling.prompts]
        named += [scoring.features, scoring.inception_weights, scoring.feature_weights]
        return [path for path in (Path(name) for name in named if name is not None) if path.exists()]


def road_of(request: Request) -> tuple[Road, dict[str, Any], Loaded]:
    """The road that is asked for, what identifies its inputs, and the backbone. Lists the reference too.

    Raises:
        ConfigError: no backbone or reference, the same seeds twice, statistics in place of images, a backbone that
            reads text without prompts or against another one, or an option of the scoring.
        MetricError: what scores cannot be computed, or the reference does not fit.
    """
    from ...improvement import Negative, Road
    from ...pipeline import load_bare

    options, common, network = request.options, request.common, request.network
    if network.name is None:
        raise ConfigError("no backbone given", hint="Name the model to improve with --backbone.")
    reference = _reference_of(request)
    seeds = _seeds_of(request)
    embedded = options.reference is None
    images = "embedded digits" if embedded else identify_images(reference, follow_links=options.follow_links)
    loaded = load_bare(network, "cpu")
    if request.negative.method == "full" and loaded.backbone.takes_text:
        raise ConfigError(
            "--method full: a second backbone that reads text cannot be sampled against", hint="Use --method lora."
        )
    check_sampler(request.sampling, loaded)
    _check_scoring(request, reference, loaded)
    road = Road(
        folder=options.output,
        backbone=network_options(network),
        reference=reference,
        negative=_negative_of(request, Negative),
        own_samples=request.negative.own_samples,
        steps=request.negative.steps,
        num_images=options.num_images,
        scales=options.scales,
        **seeds,
        sampling=sampling_options(_fill_in(request.sampling, loaded), flow=loaded.backbone.schedule.flow),
        own=["--tar", *([] if loaded.codec.record.kind == "pixel" else ["--keep-latents"])],
        scoring=_scoring_of(request),
        everywhere=everywhere(common),
        precision=precision(common),
    )
    return road, {"reference": images, **identify_network(loaded, prompts=request.sampling.prompts)}, loaded


def threads_of(request: Request) -> int | None:
    """The threads of every command; None: the folder was begun by a version that kept none."""
    import torch

    from ...improvement import settle_threads

    record = request.options.output / ("none" if request.options.force else "improvement.json")
    return settle_threads(
        record, asked=request.threads, usual=1 if request.network.is_digits else torch.get_num_threads()
    )


def folder_of(road: Road, inputs: dict[str, Any], *, threads: int | None) -> CommandFolder:
    """The records of the folder. The scales may change: samples that are there serve again."""
    from ...improvement import CommandFolder

    about = asdict(replace(road, folder=Path("."), reference=Path("reference"), backbone=()))
    about |= {"inputs": inputs} | ({} if threads is None else {"threads": threads})
    return CommandFolder(road.folder, about=about, noun="improvement", free=("scales",))


def _reference_of(request: Request) -> Path:
    given = request.options.reference
    if given is None:
        if not request.network.is_digits:
            raise ConfigError("no real images given", hint="Name a folder of them with --reference.")
        return request.options.output / "digits"
    if given.suffix == ".npz":
        from ...evaluation import holds_images

        if given.exists() and not holds_images(given):
            raise ConfigError(
                f"{given} holds statistics, of which no half can be taken", hint="Give the images with --reference."
            )
    return given


def _seeds_of(request: Request) -> dict[str, int]:
    options, first = request.options, request.common.seed or 0
    seeds = {
        "seed": first,
        "choose_seed": first + 1 if options.choose_seed is None else options.choose_seed,
        "score_seed": first + 2 if options.score_seed is None else options.score_seed,
    }
    if len(set(seeds.values())) < len(seeds):
        told = ", ".join(f"--{name.replace('_', '-')} {seed}" for name, seed in seeds.items())
        raise ConfigError(
            f"{told}: the samples that are learnt from, that choose and that are scored must be different ones",
            hint="Give three different seeds.",
        )
    return seeds


def _negative_of(request: Request, kind: Any) -> Any:
    given = request.negative
    for name, methods in _ONLY_FOR.items():
        if name in given.model_fields_set and given.method not in methods:
            raise ConfigError(
                f"--{name.replace('_', '-')} is for --method {' or '.join(methods)}, not for {given.method}"
            )
    names = (*_TRAINING, *(name for name, methods in _ONLY_FOR.items() if given.method in methods))
    options = given_of(given, names)
    if given.method == "dmp":
        options["gate_lr"] = given.lr
    return kind(given.method, options)


def _fill_in(sampling: ImproveSampling, loaded: Loaded) -> ImproveSampling:
    backbone = loaded.backbone
    if backbone.takes_text and sampling.prompts is None:
        raise ConfigError(
            "this backbone reads text, and no prompts are given", hint="Give a file of captions with --prompts."
        )
    if sampling.guidance is not None or not backbone.has_null:
        return sampling
    return sampling.model_copy(update={"guidance": _TEXT_GUIDANCE if backbone.takes_text else 1})


def _check_scoring(request: Request, reference: Path, loaded: Loaded) -> None:
    """Raise now what scoring would raise after hours of sampling."""
    from ...evaluation import check_scoring
    from ...latents import image_size

    config = build(EvalConfig, samples=(Path("samples"),), reference=reference, **_scoring_options(request))
    parts = None if request.options.reference is None else 2
    check_scoring(config, image_size=image_size(loaded.codec, loaded.backbone), parts=parts)


def _scoring_options(request: Request) -> dict[str, Any]:
    scoring = given_of(request.scoring, ImproveScoring.model_fields)
    if request.network.is_digits:
        scoring.setdefault("features", "digits")
    if request.options.follow_links:
        scoring["follow_links"] = True
    return scoring


def _scoring_of(request: Request) -> list[str]:
    from ...improvement import in_arguments

    return in_arguments(_scoring_options(request))
