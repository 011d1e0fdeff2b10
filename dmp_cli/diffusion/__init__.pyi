from .loss import denoising_loss as denoising_loss
from .schedule import Schedule as Schedule, noise_betas as noise_betas
