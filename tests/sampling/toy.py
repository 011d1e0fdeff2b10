"""A denoiser whose every step is known in closed form, for tests of sampling."""

import numpy as np
import torch
from torch import nn

from dmp_cli.config import SampleConfig, ScheduleConfig
from dmp_cli.sampling.sampler import denoise

SIDE = 4


def betas_of(kind, count=1000):
    """Ho et al. 2020; Nichol and Dhariwal 2021, Eq. 17."""
    if kind == "linear":
        return np.linspace(1e-4, 0.02, count)
    f = [np.cos((t / count + 0.008) / 1.008 * np.pi / 2) ** 2 for t in range(count + 1)]
    return np.array([min(1 - f[t + 1] / f[t], 0.999) for t in range(count)])


class Toy(nn.Module):
    """The best denoiser of Gaussian data N(mean, U diag(spread) U^T) over channels, linear in x: so its flow is known.

    eps = sqrt(1 - abar) (abar Cov + 1 - abar)^-1 (x - sqrt(abar) mean); its variance output is V x.
    """

    num_classes, has_null, takes_text, device = 0, False, False, torch.device("cpu")
    embedded_guidance = flow_sampler = None

    def __init__(self, *, kind="linear", learns_sigma=True, channels=4, spread=0.1, count=1000):
        super().__init__()
        self.schedule = ScheduleConfig(kind=kind, num_timesteps=count)
        self.learns_sigma, self.sample_shape = learns_sigma, (channels, SIDE, SIDE)
        draws = np.random.default_rng(0)
        self.axes = np.linalg.qr(draws.normal(size=(channels, channels)))[0]
        self.spread = spread * np.arange(1, channels + 1)
        self.mean = 0.3 * draws.normal(size=(channels, 1, 1))
        self.variance = 0.3 * draws.normal(size=(channels, channels))
        self.kept = np.cumprod(1 - betas_of(kind, count))

    def forward(self, x, timesteps, condition=None):
        kept = self.kept[timesteps.numpy()][:, None, None, None]
        along = np.sqrt(1 - kept) / (kept * self.spread[:, None, None] + 1 - kept)
        axes, along, centre = (torch.tensor(v, dtype=x.dtype) for v in (self.axes, along, np.sqrt(kept) * self.mean))
        epsilon = mix(axes, along * mix(axes.T, x - centre))
        if not self.learns_sigma:
            return epsilon
        return torch.cat([epsilon, mix(torch.tensor(self.variance, dtype=x.dtype), x)], dim=1)

    def flow(self, x):
        """Where the probability flow leads noise ``x`` of the last timestep: along each axis from spread to spread."""
        kept = self.kept[-1]
        shrink = np.sqrt(self.spread / (kept * self.spread + 1 - kept))
        matrix = self.axes @ np.diag(shrink) @ self.axes.T
        return np.einsum("oc,bchw->bohw", matrix, x - np.sqrt(kept) * self.mean) + self.mean


def mix(matrix, x):
    return torch.einsum("oc,bchw->bohw", matrix, x)


def fast(toy, indices, *, clip=False, **options):
    config = SampleConfig(num_images=len(indices), batch_size=len(indices), **options)
    return denoise(toy, indices, backbone=toy, config=config, clips=clip).numpy()
