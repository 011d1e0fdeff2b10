from .checkpoint import RunState as RunState
from .faults import naming_checkpoint as naming_checkpoint
from .image_record import (
    as_recorded as as_recorded,
    as_trained as as_trained,
    images_record as images_record,
)
from .methods import Trainee as Trainee, check_noise as check_noise, prepare as prepare
from .run_folder import RunFolder as RunFolder
from .trainer import (
    Progress as Progress,
    check_captions as check_captions,
    check_conditions as check_conditions,
    train as train,
)
