from . import randomness as randomness
from .devices import HALF as HALF, autocast as autocast, fast_matmul as fast_matmul, pick_device as pick_device
from .distributed import (
    World as World,
    find_world as find_world,
    leave as leave,
    refuse_many as refuse_many,
    spread_weights as spread_weights,
)
from .signals import StopRequest as StopRequest, end_on_sigterm as end_on_sigterm
