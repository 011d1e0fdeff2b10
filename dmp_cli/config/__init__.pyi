from .base import (
    Dtype as Dtype,
    Frozen as Frozen,
    Growing as Growing,
    Options as Options,
    build as build,
    default_of as default_of,
    in_words as in_words,
    options_of as options_of,
)
from .bounds import MAX_FILE_SIZE as MAX_FILE_SIZE, MAX_PIXELS as MAX_PIXELS
from .buckets import BUCKET_OPTIONS as BUCKET_OPTIONS
from .by_hand import ByHandOptions as ByHandOptions, ByHandRecord as ByHandRecord, ImageAt as ImageAt
from .changes import describe_changes as describe_changes
from .commands import (
    AblateOptions as AblateOptions,
    ArmSampling as ArmSampling,
    ArmScoring as ArmScoring,
    ArmTraining as ArmTraining,
    CommonOptions as CommonOptions,
    ConvertOptions as ConvertOptions,
    DemoOptions as DemoOptions,
    EvalOptions as EvalOptions,
    InspectOptions as InspectOptions,
    PatchOptions as PatchOptions,
    SampleOptions as SampleOptions,
    TextStoreOptions as TextStoreOptions,
    TrainOptions as TrainOptions,
)
from .data_place import (
    DataPlace as DataPlace,
    absolute_place as absolute_place,
    address as address,
    place_name as place_name,
    split_of as split_of,
    table_name as table_name,
)
from .evaluate import EvalConfig as EvalConfig, LossOptions as LossOptions
from .improve import (
    ImproveOptions as ImproveOptions,
    ImproveSampling as ImproveSampling,
    ImproveScoring as ImproveScoring,
    NegativeMethod as NegativeMethod,
    NegativeOptions as NegativeOptions,
)
from .jobs import JobOptions as JobOptions, ThreadOptions as ThreadOptions
from .levels import (
    LEVEL_OPTIONS as LEVEL_OPTIONS,
    LevelRule as LevelRule,
    Levels as Levels,
    LossWeight as LossWeight,
    level_rule as level_rule,
)
from .measured import MeasureOptions as MeasureOptions
from .memory import MemoryOptions as MemoryOptions, Quantize as Quantize, SamplingMemory as SamplingMemory
from .network import (
    BackboneOptions as BackboneOptions,
    CodecOptions as CodecOptions,
    NetworkOptions as NetworkOptions,
    PatchedOptions as PatchedOptions,
    SizeOptions as SizeOptions,
    SummedPatches as SummedPatches,
)
from .patch import DEAD_SHARE as DEAD_SHARE, GateInput as GateInput, PatchConfig as PatchConfig, Position as Position
from .pipeline_sampler import PipelineSampler as PipelineSampler, SchedulerKind as SchedulerKind
from .presets import PRESETS as PRESETS, nearest as nearest, preset_options as preset_options
from .push import PushOptions as PushOptions
from .records import (
    AdapterRecord as AdapterRecord,
    BackboneHints as BackboneHints,
    BackboneRecord as BackboneRecord,
    CodecRecord as CodecRecord,
    ExpertLayer as ExpertLayer,
    Flow as Flow,
    Objective as Objective,
    PatchRecord as PatchRecord,
    Prediction as Prediction,
    SamplingRule as SamplingRule,
    ScheduleConfig as ScheduleConfig,
    ScheduleKind as ScheduleKind,
    TableRecord as TableRecord,
    TextKindName as TextKindName,
    TextRecord as TextRecord,
    TrainingRecord as TrainingRecord,
    TunedMethod as TunedMethod,
    TunedRecord as TunedRecord,
)
from .sample import (
    DEFAULT_CHUNK as DEFAULT_CHUNK,
    FLOW_SAMPLERS as FLOW_SAMPLERS,
    MAX_IMAGES as MAX_IMAGES,
    RECTIFIED_STEPS as RECTIFIED_STEPS,
    PlanLine as PlanLine,
    Prompt as Prompt,
    SampleConfig as SampleConfig,
    Sampler as Sampler,
    name_sampler as name_sampler,
    usual_sampler as usual_sampler,
)
from .shapes import ImageSize as ImageSize, Sides as Sides, sides_of as sides_of
from .track import Tracker as Tracker, TrackOptions as TrackOptions
from .train import TrainConfig as TrainConfig
from .tune import (
    TuneImages as TuneImages,
    TuneOptions as TuneOptions,
    TuneScoring as TuneScoring,
    TuneTraining as TuneTraining,
)
from .typed import as_word as as_word
