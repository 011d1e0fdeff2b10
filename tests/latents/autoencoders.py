"""Tiny random VAEs of both kinds, with a scale and a shift of their latents."""

import torch

SCALE, SHIFT = 0.31, 0.12


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fill(model):
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(0.3 * noise(*parameter.shape, seed=index))
    return model.eval()


def kl_vae(**changes):
    from diffusers import AutoencoderKL

    sizes = {"block_out_channels": (4, 4, 4), "norm_num_groups": 2, "latent_channels": 4, "scaling_factor": SCALE}
    stages = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    return fill(AutoencoderKL(**{**sizes, **stages, "shift_factor": SHIFT, **changes}))


def tiny_vae(**changes):
    from diffusers import AutoencoderTiny

    sizes = {"encoder_block_out_channels": (4, 4), "decoder_block_out_channels": (4, 4), "latent_channels": 4}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), "scaling_factor": SCALE}
    return fill(AutoencoderTiny(**{**sizes, **blocks, **changes}))
