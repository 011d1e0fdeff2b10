"""What samples.json says of a folder of samples: all that fixes the images, and where they come from."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from ...config import PatchRecord, SampleConfig
from .network import identity_of

if TYPE_CHECKING:
    import torch

    from ...pipeline import Loaded
    from .job import Request

# Options that say which network it is, in the order in which one types them.
_GIVEN = (
    *("patch", "adapter", "against", "backbone", "checkpoint", "vae", "text", "download", "force_backbone"),
    *("image_size", "num_classes", "num_heads", "trained_with", "schedule", "objective"),
)
_NOT_THE_TRAINING = {"steps", "steps_done", "data", "dmp"}  # in its record: how far it went, and where things lay


def made_as(config: SampleConfig, loaded: Loaded, request: Request) -> dict[str, Any]:
    """All that fixes the images; another value of anything here makes other images."""
    from ...latents import image_size
    from ...patching import tensors_of
    from ...storage import sha256_of

    backbone, adapter = loaded.backbone, request.options.adapter
    assert backbone.record is not None
    against = request.options.against
    return {
        **({} if against is None else {"against": identity_of(against)}),
        "sample": config.model_dump(mode="json", exclude={"num_images"}),
        "patch": None if request.bare else _patches(request),
        "adapter": None if adapter is None else sha256_of(tensors_of(adapter)),
        "backbone": backbone.record.model_dump(mode="json", include={"family", "sizes", "digest"}),
        "schedule": backbone.schedule.model_dump(),
        "codec": loaded.codec.record.model_dump(include={"kind", "digest", "settings"}),
        "image_size": image_size(loaded.codec, backbone),
        "text": backbone.captions.encoder.record.digest if backbone.takes_text else None,
    }


def _patches(request: Request) -> Any:
    """The digest of the patch file; of several patches, [digest, strength] of each."""
    from ...storage import sha256_of

    found = [[sha256_of(share.path), share.strength] for share in request.patches]
    return found[0][0] if len(found) == 1 else found


def as_recorded(request: Request, recorded: dict[str, Any] | None) -> SampleConfig:
    """The config as asked for; with all prompts of a long file where an earlier version began the folder so."""
    earlier = (recorded or {}).get("made", {}).get("sample", {}).get("prompts")
    if request.config.prompt_file is None or not earlier:
        return request.config
    return request.config.model_copy(update={"prompt_file": None, "prompts": tuple(request.prompts or ())})


def keep_old_rules(loaded: Loaded, recorded: dict[str, Any] | None) -> None:
    """Let images that an earlier version began be drawn on as they were.

    That version read nothing of what a pipeline says about sampling, and recorded no config of a VAE.
    """
    backbone, old = loaded.backbone, (recorded or {}).get("made", {}).get("schedule")
    without = backbone.schedule.model_copy(update={"sampling": None})
    if old == without.model_dump():
        backbone.schedule = without
    codec, old = loaded.codec.record, (recorded or {}).get("made", {}).get("codec")
    if old is not None and "settings" not in old:
        loaded.codec.record = codec.model_copy(update={"settings": None})


def origin_of(loaded: Loaded, request: Request, device: torch.device) -> dict[str, Any]:
    """Where the images were made and with what; none of it should change them by more than a level."""
    from ...sampling import versions

    assert loaded.backbone.record is not None
    return {
        "device": device.type,
        "versions": versions(),
        "given": {name: _as_named(value) for name, value in request.given.typed(_GIVEN).items()},
        "trained": None if request.bare or len(request.patches) > 1 else _trained(loaded.record),
        **_classes(loaded.record),
        "backbone": loaded.backbone.record.source,
        "codec": loaded.codec.record.source,
    }


def _as_named(value: Any) -> Any:
    """A patch of the hub's cache by its name and commit, which find it on any machine; all else as it was given."""
    from ...hub import pinned_name

    if isinstance(value, list):
        return [_as_named(one) for one in value]
    return (pinned_name(value) or value) if isinstance(value, str) else value


def _classes(record: PatchRecord | None) -> dict[str, Any]:
    """The names of the classes in the order of their indices, where the patch's training recorded them."""
    names = (record.training or {}).get("classes") if record is not None else None
    return {"classes": names} if names else {}


def _trained(record: PatchRecord | None) -> dict[str, Any] | None:
    """Which training a patch comes from and how far it had come, for scores over steps; None: it does not say."""
    if record is None or not record.training:
        return None
    told = {key: value for key, value in record.training.items() if key not in _NOT_THE_TRAINING}
    content = json.dumps([told, record.config.model_dump(mode="json")], sort_keys=True)
    name = f"{told.get('method')}, seed {told.get('seed')}" + (", averaged" if "average" in told else "")
    return {
        "steps": record.training.get("steps_done", 0),
        "training": hashlib.sha256(content.encode()).hexdigest(),
        "name": name,
    }
