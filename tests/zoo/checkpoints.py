"""Training checkpoints as public code bases save them, around given weights."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]
_OPTIMIZER: dict[str, Any] = {"state": {}, "param_groups": []}

# As facebookresearch/DiT's train.py parses them.
DIT_ARGS = {
    "data_path": "/data/imagenet", "results_dir": "results", "model": "DiT-XL/2", "image_size": 256,
    "num_classes": 1000, "epochs": 1400, "global_batch_size": 256, "global_seed": 0, "vae": "ema", "num_workers": 4,
    "log_every": 100, "ckpt_every": 50_000,
}  # fmt: skip
# As willisma/SiT's train.py parses them.
SIT_ARGS = {
    **DIT_ARGS, "model": "SiT-XL/2", "sample_every": 10_000, "cfg_scale": 4.0, "wandb": False, "ckpt": None,
    "path_type": "Linear", "prediction": "velocity", "loss_weight": None, "sample_eps": None, "train_eps": None,
}  # fmt: skip
# As sihyun-yu/REPA's train.py parses them.
REPA_ARGS = {
    "output_dir": "exps", "exp_name": "linear-dinov2-b-enc8", "model": "SiT-XL/2", "num_classes": 1000,
    "encoder_depth": 8, "resolution": 256, "batch_size": 256, "path_type": "linear", "prediction": "v",
    "cfg_prob": 0.1, "enc_type": "dinov2-vit-b", "proj_coeff": 0.5, "weighting": "uniform", "legacy": False,
}  # fmt: skip
# The nested config of hustvl/LightningDiT.
LIGHTNING_DIT_CONFIG = {
    "data": {"image_size": 256, "num_classes": 1000},
    "model": {"model_type": "LightningDiT-XL/1", "use_qknorm": False, "in_chans": 32},
    "transport": {"path_type": "Linear", "prediction": "velocity", "loss_weight": None, "use_lognorm": True},
}


def with_prefix(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def training_checkpoint(tensors: Tensors, args: dict[str, Any] | None = None) -> dict[str, Any]:
    """As DiT's and SiT's train.py save: the model, its average, the optimizer and the arguments."""
    other = {name: tensor + 100 for name, tensor in tensors.items()}
    return {"model": other, "ema": tensors, "opt": _OPTIMIZER, "args": argparse.Namespace(**(args or DIT_ARGS))}


def repa_checkpoint(tensors: Tensors, args: dict[str, Any] | None = None) -> dict[str, Any]:
    """As REPA's train.py saves: SiT's tensors, and the projectors that its loss compares with an image encoder."""
    width = len(tensors["x_embedder.proj.weight"])
    heads = {f"projectors.0.{layer}.{kind}": torch.ones(*shape)
             for layer in (0, 2) for kind, shape in (("weight", (width, width)), ("bias", (width,)))}  # fmt: skip
    return training_checkpoint({**tensors, **heads}, args or REPA_ARGS)


def _other(tensors: Tensors) -> Tensors:
    return {name: tensor + 100 for name, tensor in tensors.items()}


# What each code base makes of the same weights, by its name.
LAYOUTS: dict[str, Callable[[Tensors], Any]] = {
    "DiT's train.py": training_checkpoint,
    "DDP and compile": lambda t: {"model": with_prefix("module._orig_mod.", t)},
    "lightning": lambda t: {"state_dict": with_prefix("model.", t), "epoch": 1, "pytorch-lightning_version": "2.4"},
    "lightning, nested": lambda t: {"state_dict": with_prefix("denoiser.net.", t)},
    "lightning with an average": lambda t: {
        "state_dict": {**with_prefix("model.", _other(t)), **with_prefix("ema_model.", t)}
    },
    "lightning with a loss": lambda t: {
        "state_dict": {**with_prefix("net.", t), "loss.a.weight": torch.ones(2), "loss.b.weight": torch.ones(2)}
    },
    "ema-pytorch": lambda t: {
        "ema": {
            **with_prefix("ema_model.", t), **with_prefix("online_model.", _other(t)),
            "initted": torch.tensor(True), "step": torch.tensor(5),
        }
    },
    "torch's AveragedModel": lambda t: {"n_averaged": torch.tensor(5), **with_prefix("module.", t)},
    "diffusers' EMAModel": lambda t: {
        "model": _other(t), "ema": {"decay": 0.9999, "optimization_step": 5, "shadow_params": [*t.values()]}
    },
    "an empty average": lambda t: {"ema": {}, "model": t},
    "no average": lambda t: {"ema": None, "model": t},
    "timm's ModelEma": lambda t: {"state_dict": _other(t), "state_dict_ema": t},
    "a plain loop": lambda t: {"epoch": 3, "model_state_dict": t, "optimizer_state_dict": _OPTIMIZER},
    "BasicSR": lambda t: {"params": _other(t), "params_ema": t},
    "DeepSpeed": lambda t: {"module": t, "buffer_names": [], "optimizer": None, "ds_version": "0.14"},
    "a step beside the tensors": lambda t: {**t, "step": 1000},
}  # fmt: skip


# What the trainings of flows leave, by the code's name: each says in its options or tensors which flow it is.
FLOWS: dict[str, Callable[[Tensors], Any]] = {
    "SiT's train.py": lambda t: training_checkpoint(t, SIT_ARGS),
    "REPA's train.py": repa_checkpoint,
    "REPA, its average alone": lambda t: repa_checkpoint(t)["ema"],
    "REPA, blocks under their older names": lambda t: _decoder_blocks(repa_checkpoint(t)["ema"]),
}


# Bare weights that say of no flow: what each is, by the words for it.
TOLD_FLOWS = {
    "SiT's public file, bare, with `--objective sit`": "sit",
    "SiT's tensors of REPA, without its projectors, with `--objective repa`": "repa",
}


def _decoder_blocks(tensors: Tensors) -> Tensors:
    """All blocks behind the first under ``decoder_blocks``, counted anew."""
    return {
        re.sub(r"^blocks\.([1-9]\d*)\.", lambda found: f"decoder_blocks.{int(found[1]) - 1}.", name): tensor
        for name, tensor in tensors.items()
    }


def write_accelerate_state(folder: Path, tensors: Tensors) -> Path:
    """The folder of accelerate's ``save_state``."""
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    torch.save(_OPTIMIZER, folder / "optimizer.bin")
    torch.save({}, folder / "scheduler.bin")
    return folder
