from .flow import read_levels as read_levels
from .folder import SampleFolder as SampleFolder
from .long_captions import find_long as find_long
from .part import Part as Part
from .plan import Plan as Plan, read_plan as read_plan
from .prompt_file import read_prompts as read_prompts
from .record import SampleRecord as SampleRecord, read_record as read_record, versions as versions
from .sampler import (
    chunks as chunks,
    resolve as resolve,
    sample as sample,
    timesteps_of as timesteps_of,
    with_own_scheduler as with_own_scheduler,
)
from .scheduler import build_scheduler as build_scheduler, check_steps as check_steps
