from .backbone_alone import bare as bare
from .checkpoint import RunState as RunState
from .conditions import check_captions as check_captions, check_conditions as check_conditions
from .faults import naming_checkpoint as naming_checkpoint
from .held_out import HeldOut as HeldOut, HeldOutLoss as HeldOutLoss, chosen_images as chosen_images
from .held_out_page import build_held_out_page as build_held_out_page, build_loss_page as build_loss_page
from .image_record import (
    as_recorded as as_recorded,
    as_trained as as_trained,
    images_record as images_record,
)
from .memory import keeping_of as keeping_of
from .methods import Trainee as Trainee, check_noise as check_noise, prepare as prepare
from .needs import (
    Need as Need,
    count_loaded as count_loaded,
    count_loaded_sampling as count_loaded_sampling,
    count_sampling as count_sampling,
    count_training as count_training,
    passes_of as passes_of,
    prepare_dry as prepare_dry,
)
from .run_folder import PAGE as PAGE, RunFolder as RunFolder
from .trainer import Progress as Progress, train as train
