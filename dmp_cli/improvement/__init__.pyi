from .choice import read_choice as read_choice
from .command_folder import (
    CommandFolder as CommandFolder,
    is_whole as is_whole,
    scores_of as scores_of,
    settle_threads as settle_threads,
)
from .negative import EMA as EMA, Negative as Negative, against as against, in_arguments as in_arguments
from .outcome import read_outcome as read_outcome
from .page import build_improvement_page as build_improvement_page, draw_before_after as draw_before_after
from .road import Road as Road
