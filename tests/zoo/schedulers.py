"""The configs of public schedulers, with the fields and values that their repositories hold."""

from __future__ import annotations

from typing import Any

_SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}

# Weights trained with the noise of a DDPM, by the repository that the config is from.
DDPM_LIKE: dict[str, dict[str, Any]] = {
    "google/ddpm-cifar10-32": {
        "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02, "beta_schedule": "linear",
        "beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": 1000, "trained_betas": None,
        "variance_type": "fixed_large",
    },
    "CompVis/ldm-celebahq-256": {
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.0.4", "beta_end": 0.0195,
        "beta_schedule": "scaled_linear", "beta_start": 0.0015, "clip_sample": False, "num_train_timesteps": 1000,
        "timestep_values": None, "trained_betas": None,
    },
    "stable-diffusion-v1-5/stable-diffusion-v1-5": {
        "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **_SD, "set_alpha_to_one": False,
        "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None, "clip_sample": False,
    },
    "stabilityai/stable-diffusion-2-1": {
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", **_SD, "clip_sample": False,
        "prediction_type": "v_prediction", "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
        "trained_betas": None,
    },
    "facebook/DiT-XL-2-256": {
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.12.0.dev0", "beta_end": 0.02,
        "beta_schedule": "linear", "beta_start": 0.0001, "clip_sample": False, "num_train_timesteps": 1000,
        "prediction_type": "epsilon", "set_alpha_to_one": True, "steps_offset": 0, "trained_betas": None,
    },
    "PixArt-alpha/PixArt-XL-2-512x512": {
        "_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.22.0.dev0",
        "algorithm_type": "dpmsolver++", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
        "dynamic_thresholding_ratio": 0.995, "euler_at_final": False, "lambda_min_clipped": float("-inf"),
        "lower_order_final": True, "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0,
        "solver_order": 2, "solver_type": "midpoint", "steps_offset": 0, "thresholding": False,
        "timestep_spacing": "linspace", "trained_betas": None, "use_karras_sigmas": False, "use_lu_lambdas": False,
        "variance_type": None,
    },
    "stabilityai/stable-diffusion-xl-base-1.0": {
        "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", **_SD, "clip_sample": False,
        "interpolation_type": "linear", "prediction_type": "epsilon", "sample_max_value": 1.0,
        "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading",
        "trained_betas": None, "use_karras_sigmas": False,
    },
    "a U-Net of diffusers' own training script": {
        "_class_name": "DDPMScheduler", "_diffusers_version": "0.30.0", "beta_end": 0.02,
        "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "clip_sample": True, "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995, "num_train_timesteps": 1000, "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False, "sample_max_value": 1.0, "steps_offset": 0, "thresholding": False,
        "timestep_spacing": "leading", "trained_betas": None, "variance_type": "fixed_small",
    },
}  # fmt: skip

# Of rectified flows, likewise. A backbone that is no flow is refused with one.
FLOWS: dict[str, dict[str, Any]] = {
    "stabilityai/stable-diffusion-3-medium-diffusers": {
        "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.29.0.dev0",
        "num_train_timesteps": 1000, "shift": 3.0,
    },
    "a flow sampled by Heun": {
        "_class_name": "FlowMatchHeunDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0,
    },
    "black-forest-labs/FLUX.1-dev": {
        "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.30.0.dev0",
        "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15,
        "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": True,
    },
    "black-forest-labs/FLUX.1-schnell": {
        "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.30.0.dev0",
        "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15,
        "num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False,
    },
}  # fmt: skip

# Weights of another process, by the repository that the config is from.
OTHER: dict[str, dict[str, Any]] = {
    "playgroundai/playground-v2.5-1024px-aesthetic": {
        "_class_name": "EDMDPMSolverMultistepScheduler", "_diffusers_version": "0.27.0.dev0", "algorithm_type":
        "dpmsolver++", "num_train_timesteps": 1000, "prediction_type": "epsilon", "rho": 7.0, "sigma_data": 0.5,
        "sigma_max": 80.0, "sigma_min": 0.002, "solver_order": 2, "solver_type": "midpoint",
    },
    "openai/diffusers-cd_imagenet64_l2": {
        "_class_name": "CMStochasticIterativeScheduler", "_diffusers_version": "0.18.0.dev0", "clip_denoised": True,
        "num_train_timesteps": 40, "rho": 7.0, "s_noise": 1.0, "sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002,
    },
    "google/ncsnpp-ffhq-256": {
        "_class_name": "ScoreSdeVeScheduler", "_diffusers_version": "0.1.1", "correct_steps": 1,
        "num_train_timesteps": 2000, "sampling_eps": 1e-05, "sigma_max": 348, "sigma_min": 0.01, "snr": 0.15,
    },
    "a VP score SDE": {
        "_class_name": "ScoreSdeVpScheduler", "beta_max": 20, "beta_min": 0.1, "num_train_timesteps": 2000,
        "sampling_eps": 0.001,
    },
    "SimianLuo/LCM_Dreamshaper_v7": {
        "_class_name": "LCMScheduler", "_diffusers_version": "0.22.0.dev0", **_SD, "clip_sample": False,
        "original_inference_steps": 50, "prediction_type": "epsilon", "rescale_betas_zero_snr": False,
        "set_alpha_to_one": True, "steps_offset": 0, "timestep_scaling": 10.0, "timestep_spacing": "leading",
        "trained_betas": None,
    },
}  # fmt: skip
