from .flow import Flow as Flow
from .levels import noise_shares as noise_shares
from .loss import denoising_loss as denoising_loss
from .process import (
    Loss as Loss,
    Process as Process,
    exact_type as exact_type,
    level_grid as level_grid,
    noise_share as noise_share,
)
from .processes import make_process as make_process
from .schedule import Schedule as Schedule, noise_betas as noise_betas
from .weights import SNR_GAMMA as SNR_GAMMA, check_weight as check_weight, make_weigh as make_weigh
