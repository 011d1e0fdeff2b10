from . import randomness as randomness
from .ambient import Ambient as Ambient
from .devices import HALF as HALF, autocast as autocast, fast_matmul as fast_matmul, pick_device as pick_device
from .distributed import (
    World as World,
    find_world as find_world,
    leave as leave,
    refuse_many as refuse_many,
    spread_weights as spread_weights,
)
from .faults import (
    describe_fault as describe_fault,
    explaining_memory as explaining_memory,
    free_memory as free_memory,
    is_lost_device as is_lost_device,
    is_out_of_memory as is_out_of_memory,
    let_go_of_memory as let_go_of_memory,
    measure_peak as measure_peak,
)
from .lifeline import ask_to_end as ask_to_end, hold_lifeline as hold_lifeline, tied as tied
from .live_memory import LiveMemory as LiveMemory, shapes_only as shapes_only
from .progress import Advance as Advance, counting as counting, tracking as tracking, watched as watched
from .signals import (
    STOP_SIGNALS as STOP_SIGNALS,
    Foresight as Foresight,
    StopRequest as StopRequest,
    end_on_signals as end_on_signals,
    end_silently_on_signals as end_silently_on_signals,
    ended_by as ended_by,
    name_of as name_of,
)
from .streams import (
    LastingStream as LastingStream,
    complain as complain,
    let_go_of_closed as let_go_of_closed,
    show_controls as show_controls,
    spell_characters as spell_characters,
)
from .threads import thread_environment as thread_environment, threads_limited as threads_limited
