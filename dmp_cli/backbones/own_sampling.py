"""How the pipeline that weights come from draws images itself: its scheduler, and what its call does by default."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from ..config import BackboneHints, PipelineSampler, ScheduleConfig, SchedulerKind, build
from ..errors import ConfigError
from ..storage import Weights, peek_pipeline
from .scheduler_fields import NOISE, class_defaults, is_flow
from .schedules import RECTIFIED, schedule_of
from .sources import place_of

# Steps and guidance of a pipeline's call where nothing is asked for; guidance None: it has none.
_CALLS: dict[str, tuple[int, float | None]] = {
    "StableDiffusionPipeline": (50, 7.5),
    "StableDiffusionXLPipeline": (50, 5.0),
    "PixArtAlphaPipeline": (20, 4.5),
    "PixArtSigmaPipeline": (20, 4.5),
    "StableDiffusion3Pipeline": (28, 7.0),
    "FluxPipeline": (28, 3.5),
    "AuraFlowPipeline": (50, 3.5),
    "Lumina2Pipeline": (30, 4.0),
    "SanaPipeline": (20, 4.5),
    "QwenImagePipeline": (50, None),  # without a negative prompt
    "ZImagePipeline": (50, 5.0),  # which counts guidance from 0: it is 6 everywhere else
    "CogView4Pipeline": (50, 5.0),
    "HunyuanDiTPipeline": (50, 5.0),
    "DiTPipeline": (50, 4.0),
    "DDPMPipeline": (1000, None),
    "DDIMPipeline": (50, None),
}


class OwnSampling(NamedTuple):
    """How a pipeline draws images itself."""

    scheduler: str  # class of its scheduler
    sampler: PipelineSampler | None  # None: it cannot be followed, see ``problem``
    problem: str = ""  # why it cannot, in words
    steps: int | None = None  # of its call by default; None: the pipeline's class is not known
    guidance: float | None = None  # likewise; None also where it has no guidance

    def in_words(self) -> str:
        """Such as ``PNDM, 50 steps, guidance 7.5``."""
        parts = [self.scheduler.removesuffix("Scheduler")]
        parts += [] if self.steps is None else [f"{self.steps} steps"]
        return ", ".join(parts + ([] if self.guidance is None else [f"guidance {self.guidance:g}"]))

    def to_json(self) -> dict[str, Any]:
        """The same for ``--json``."""
        return {"scheduler": self.scheduler, "steps": self.steps, "guidance": self.guidance}


class Peeked(NamedTuple):
    """What the folder of a backbone says before its weights are read."""

    own: OwnSampling | None  # None: the weights are part of no pipeline
    schedule: ScheduleConfig | None  # the pipeline's noise; None likewise


def own_sampling_of(weights: Weights) -> OwnSampling | None:
    """How the pipeline that ``weights`` are part of draws images; None: they are part of none, or it has no scheduler.

    A scheduler that cannot be followed is refused where it is asked for, not here.
    """
    found = None if weights.pipeline is None or weights.holds else peek_pipeline(weights.pipeline)
    return None if found is None or weights.scheduler is None else _read(weights.scheduler, pipeline=found[1])


def peek_own_sampling(name: str, checkpoint: Path | None = None) -> Peeked | None:
    """How the pipeline of a backbone draws images, from its JSON files alone; None: only a load can tell.

    Raises:
        CheckpointError: a file cannot be read, or the noise is not supported, as a load would say.
    """
    place = place_of(name, checkpoint)
    if place is None or not place.exists():
        return None
    found = peek_pipeline(place)
    if found is None:
        return Peeked(None, None)
    weights = Weights({}, {}, None, place, scheduler=found[0], pipeline=place)
    if is_flow(found[0]):
        return Peeked(_read(found[0], pipeline=found[1]), RECTIFIED)
    noise = schedule_of(weights, BackboneHints(), family="unet", learns_sigma=True)
    return Peeked(_read(found[0], pipeline=found[1]), noise)


def _read(given: Mapping[str, Any], *, pipeline: str) -> OwnSampling:
    """The fields that a scheduler's class takes: stated ones, else its defaults. Others are passed over, as there."""
    kind, (steps, guidance) = str(given.get("_class_name")), _CALLS.get(pipeline, (None, None))
    if kind not in get_args(SchedulerKind):
        return OwnSampling(kind, None, f"{kind} cannot be followed faithfully", steps, guidance)
    defaults = class_defaults(kind)
    fields = {key: given.get(key, value) for key, value in defaults.items() if key not in NOISE}
    fields = {key: value for key, value in fields.items() if key in PipelineSampler.model_fields}
    if fields.get("lambda_min_clipped") == -math.inf:
        del fields["lambda_min_clipped"]  # the default, which JSON has no word for
    if not fields.get("use_flow_sigmas"):  # read together alone
        for key in ("use_flow_sigmas", "flow_shift"):
            fields.pop(key, None)
    if not kind.startswith("DDPM"):
        fields.pop("variance_type", None)  # it says which channels are left out, as is always done here
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    try:
        return OwnSampling(kind, build(PipelineSampler, kind=kind, **fields), "", steps, guidance)
    except ConfigError as error:
        # a field of the file, not an option
        problem = re.sub(r"--([a-z][a-z-]*)", lambda found: found[1].replace("-", "_"), error.message)
        return OwnSampling(kind, None, f"the config of its {kind} is not valid: {problem}", steps, guidance)
