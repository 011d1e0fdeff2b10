"""From the options of a command that runs others to the options of those, and to what identifies their inputs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ArmSampling, CommonOptions, Flow, Frozen, NetworkOptions, SampleConfig, build, usual_sampler
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..pipeline import Loaded

_NETWORK = (
    *("backbone", "checkpoint", "vae", "image_size", "num_classes", "num_heads", "trained_with", "schedule"),
    *("objective", "text", "download"),
)
# Options of dmp sample that go by another name where a command runs it.
_RENAMED = {"sampling_steps": "steps", "sample_batch_size": "batch-size", "guidance_channels": "guidance-channels"}


def given_of(record: Frozen, names: Iterable[str]) -> dict[str, Any]:
    """The options of a record that were given, in the order of ``names``, which records of folders keep."""
    values = {name: getattr(record, name) for name in names}
    return {name: value for name, value in values.items() if value not in (None, False)}


def network_options(network: NetworkOptions) -> list[str]:
    """Which network it is, as typed."""
    return _typed(given_of(network, _NETWORK))


def sampling_options(sampling: ArmSampling, *, flow: Flow | None) -> list[str]:
    """How samples are drawn, as ``dmp sample`` takes it; ``flow``: what the backbone is trained as, None: a DDPM."""
    given = given_of(sampling, ArmSampling.model_fields)
    if (usual := usual_sampler(flow)) is not None:  # of a DDPM it is named where the sets are drawn
        given.setdefault("sampler", usual)
    if sampling.prompts is not None:
        given["prompts"] = sampling.prompts.resolve()
    return _typed({_RENAMED.get(name, name): value for name, value in given.items()})


def check_sampler(sampling: ArmSampling, loaded: Loaded | None, *, methods: Iterable[str | None] = ()) -> None:
    """Raise ConfigError now for a sampler or a number of steps that drawing would refuse after a training.

    ``methods`` are those whose trained network is drawn from alone.
    """
    from ..sampling import check_steps, with_own_scheduler

    alone = [method for method in methods if method in ("full", "scratch")]
    if sampling.sampler == "pipeline" and alone:
        raise ConfigError(
            f"--sampler pipeline: the weights that --method {alone[0]} trains are part of no pipeline",
            hint="Name a sampler, such as --sampler ddim.",
        )
    if loaded is None:
        return
    backbone = loaded.backbone
    usual = usual_sampler(backbone.schedule.flow)
    told = {"sampler": sampling.sampler or usual, "steps": sampling.sampling_steps}
    config = build(SampleConfig, **{key: value for key, value in told.items() if value is not None})
    filled = with_own_scheduler(config, backbone.own_sampling, flow=backbone.flow_sampler)
    check_steps(filled, backbone.schedule)


def everywhere(common: CommonOptions) -> list[str]:
    """What every inner command takes."""
    return _typed({"device": common.device} if common.device else {})


def precision(common: CommonOptions) -> list[str]:
    """What training and sampling take, but not scoring, which is always in fp32."""
    return _typed({"dtype": common.dtype} if common.dtype else {})


def identify_network(loaded: Loaded, *, prompts: Path | None) -> dict[str, Any]:
    """Digests of backbone, codec, text encoder and prompts: nothing of it may change between two calls."""
    from ..latents import image_size
    from ..storage import sha256_of

    backbone = loaded.backbone
    assert backbone.record is not None
    return {
        "backbone": [backbone.record.digest, backbone.sizes, backbone.schedule.model_dump(exclude={"sampling"})],
        "codec": loaded.codec.record.digest,
        "image size": image_size(loaded.codec, backbone),
        "text encoder": backbone.captions.encoder.record.digest if backbone.takes_text else None,
        "prompts": None if prompts is None else sha256_of(prompts),
    }


def identify_images(path: Path, *, follow_links: bool) -> str:
    """The fingerprint of a folder of images, or the digest of saved statistics."""
    from ..data import Bounds, find_images
    from ..storage import sha256_of

    if path.suffix == ".npz" and path.exists():
        return sha256_of(path)
    return find_images(path, bounds=Bounds(follow_links=follow_links)).fingerprint


def _typed(options: dict[str, Any]) -> list[str]:
    from ..improvement import in_arguments

    return in_arguments(options)
