from . import randomness as randomness
from .devices import HALF as HALF, autocast as autocast, fast_matmul as fast_matmul, pick_device as pick_device
from .distributed import (
    World as World,
    find_world as find_world,
    leave as leave,
    refuse_many as refuse_many,
    spread_weights as spread_weights,
)
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
    spell_characters as spell_characters,
)
