from .defaults import default_sampler as default_sampler, default_steps as default_steps, fill_in as fill_in
from .folder import SampleFolder as SampleFolder
from .long_captions import find_long as find_long
from .packed_records import digest_of as digest_of
from .part import Part as Part
from .plan import Plan as Plan, read_plan as read_plan
from .prompt_file import read_prompts as read_prompts
from .record import SampleRecord as SampleRecord, read_record as read_record, versions as versions
from .sampler import (
    Sample as Sample,
    chunks as chunks,
    resolve as resolve,
    sample as sample,
    with_own_scheduler as with_own_scheduler,
)
from .scheduler import check_steps as check_steps
from .timesteps import visited_timesteps as visited_timesteps
from .visited import read_by_network as read_by_network
