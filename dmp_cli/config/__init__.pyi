from .base import Dtype as Dtype, Frozen as Frozen, build as build
from .evaluate import EvalConfig as EvalConfig
from .patch import (
    GateInput as GateInput,
    GateKind as GateKind,
    Init as Init,
    PatchConfig as PatchConfig,
    Position as Position,
    Scope as Scope,
    Selection as Selection,
)
from .presets import nearest as nearest, preset_options as preset_options
from .records import (
    AdapterRecord as AdapterRecord,
    BackboneHints as BackboneHints,
    BackboneRecord as BackboneRecord,
    CodecRecord as CodecRecord,
    PatchRecord as PatchRecord,
    ScheduleConfig as ScheduleConfig,
    ScheduleKind as ScheduleKind,
    TableRecord as TableRecord,
    TextRecord as TextRecord,
    Trainer as Trainer,
)
from .sample import (
    GuidedChannels as GuidedChannels,
    PlanLine as PlanLine,
    Prompt as Prompt,
    SampleConfig as SampleConfig,
    Sampler as Sampler,
)
from .train import (
    BalanceLosses as BalanceLosses,
    Method as Method,
    RateSchedule as RateSchedule,
    TrainConfig as TrainConfig,
)
