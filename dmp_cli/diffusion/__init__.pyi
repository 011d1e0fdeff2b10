from .flow import Flow as Flow
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
