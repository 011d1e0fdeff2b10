from .journal import (
    COMPLETE as COMPLETE,
    FAILED as FAILED,
    PRUNED as PRUNED,
    RUNNING as RUNNING,
    Journal as Journal,
    Trial as Trial,
)
from .outcome import (
    Outcome as Outcome,
    best_of as best_of,
    read_outcome as read_outcome,
    read_value as read_value,
)
from .page import (
    build_tuning_page as build_tuning_page,
    draw_trials as draw_trials,
    gain_table as gain_table,
    render_summary as render_summary,
    sentences as sentences,
    winner_toml as winner_toml,
)
from .plan import DIGITS as DIGITS, Tuning as Tuning
from .ranges import Range as Range, Ranges as Ranges, default_ranges as default_ranges, read_ranges as read_ranges
