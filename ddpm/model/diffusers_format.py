"""A trained model as the folder that the diffusers library reads, written without that library.

The network is their UNet2DModel under other names, the schedule goes as a list of β, so nothing is approximated.
"""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ddpm.config import ModelConfig
from ddpm.diffusion.process import Diffusion
from ddpm.runtime.errors import InputError

MODEL_INDEX = "model_index.json"
UNET_CONFIG = "unet/config.json"
UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
FILES = (UNET_CONFIG, UNET_WEIGHTS, SCHEDULER_CONFIG, MODEL_INDEX)
PREDICTION_TYPES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
VARIANCE_TYPES = {"fixed": "fixed_small", "learned": "learned_range"}

NAMES = {
    "time_mlp.0": "time_embedding.linear_1",
    "time_mlp.2": "time_embedding.linear_2",
    "class_embedding": "class_embedding",
    "stem": "conv_in",
    "head.0": "conv_norm_out",
    "head.2": "conv_out",
}
BLOCK_NAMES = {
    "norm1": "norm1",
    "conv1": "conv1",
    "embed": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "skip": "conv_shortcut",
}
ATTENTION_NAMES = {"norm": "group_norm", "qkv": "to_qkv", "out": "to_out.0"}  # to_qkv is one tensor here, three there


def save_diffusers(folder: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write unet/, scheduler/ and model_index.json, with the same bytes for the same content.

    Args:
        folder: created when missing.
        weights: a state dict of `UNet`, on the CPU.
        config: the content of config.json, see `model_file.save_model`.

    Raises:
        InputError: UNet2DModel cannot express this network; the sentence names the parameter.
    """
    unet = unet_config(weights, config)
    files = {
        UNET_CONFIG: _json(unet),
        UNET_WEIGHTS: save(unet_weights(weights, config), metadata={"format": "pt"}),
        SCHEDULER_CONFIG: _json(scheduler_config(config)),
        MODEL_INDEX: _json(
            {
                "_class_name": "DDPMPipeline",
                "unet": ["diffusers", "UNet2DModel"],
                "scheduler": ["diffusers", "DDPMScheduler"],
            }
        ),
    }
    (folder / MODEL_INDEX).unlink(missing_ok=True)  # written last, so that a folder that has it is complete
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def unet_config(weights: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of UNet2DModel for a network that computes the same.

    Raises:
        InputError: there are none; the sentence names the parameter.
    """
    model = ModelConfig.model_validate(config["model"])
    if model.patch != 1:
        raise InputError(
            f"model.patch: found {model.patch}, but diffusers builds no networks that work on patches; "
            "train one with model.patch: 1"
        )
    if model.channel_mults[0] != 1:
        raise InputError(
            f"model.channel_mults: found {model.channel_mults}, but diffusers builds only networks whose list begins "
            "with 1; train one with other model.channels and a list that begins with 1"
        )
    attends = [side in model.attention for side in model.resolutions(config["image_size"])]
    widths = [model.channels * mult for mult in model.channel_mults]
    groups = math.gcd(32, model.channels)  # as in `unet.group_norm`
    down = ["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends]
    up = ["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)]
    return {
        "_class_name": "UNet2DModel",
        "sample_size": config["image_size"],
        "in_channels": 3,
        "out_channels": len(weights["head.2.bias"]),
        "time_embedding_type": "positional",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "down_block_types": down,
        "mid_block_type": "UNetMidBlock2D",
        "add_attention": bool(model.attention),
        "up_block_types": up,
        "block_out_channels": widths,
        "layers_per_block": model.blocks,
        "downsample_padding": 1,
        "downsample_type": "conv",
        "upsample_type": "conv",
        "dropout": model.dropout,
        "act_fn": "silu",
        "attention_head_dim": _head_dim(model, widths, attends),
        "norm_num_groups": groups,
        "attn_norm_num_groups": groups,  # without it, the middle's attention has no normalisation at all
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift",
        "class_embed_type": None,
        # Counted, because a network may know one more class than the data has.
        "num_class_embeds": len(weights["class_embedding.weight"]) if "class_embedding.weight" in weights else None,
    }


def unet_weights(weights: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """Weights of `UNet` under the names of UNet2DModel."""
    names = _module_names(ModelConfig.model_validate(config["model"]))
    renamed = {}
    for key, tensor in weights.items():
        module, kind = key.rsplit(".", 1)
        name = names[module]
        if name.endswith(".to_qkv"):
            # Here a single 1 × 1 convolution gives all three, there a linear layer each.
            for part, rows in zip("qkv", _linear(tensor).chunk(3), strict=True):
                renamed[f"{name.removesuffix('qkv')}{part}.{kind}"] = rows.clone()
        else:
            renamed[f"{name}.{kind}"] = _linear(tensor) if name.endswith(".to_out.0") else tensor
    # In use, convolutions may be laid out in another order.
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def scheduler_config(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of DDPMScheduler, which their other schedulers understand as well."""
    diffusion = Diffusion(config["schedule"], **config["diffusion"])
    levels = [diffusion.alpha_cumprod(t) for t in range(-1, diffusion.timesteps)]
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": diffusion.timesteps,
        "trained_betas": [1 - level / before for before, level in pairwise(levels)],
        "prediction_type": PREDICTION_TYPES[diffusion.target],
        "variance_type": VARIANCE_TYPES[diffusion.variance],
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "timestep_spacing": "trailing",
    }


def _head_dim(model: ModelConfig, widths: list[int], attends: list[bool]) -> int | None:
    """Channels per head, the same at all resolutions; None for a single head however wide it is."""
    places = {width for width, attend in zip(widths, attends, strict=True) if attend}
    if model.attention:
        places.add(widths[-1])  # the middle
    if all(width <= model.head_channels for width in places):
        return None
    if min(places) < model.head_channels:
        raise InputError(
            f"model.head_channels: found {model.head_channels}, but diffusers cannot build attention with single heads "
            f"of {min(places)} channels at one resolution and heads of {model.head_channels} at another; "
            f"train a network with at most {min(places)}"
        )
    return model.head_channels


def _module_names(model: ModelConfig) -> dict[str, str]:
    """Name in UNet2DModel of each module of `UNet` that has weights."""
    names = dict(NAMES)

    def add_level(ours: str, theirs: str, number: int) -> None:
        names.update({f"{ours}.block.{a}": f"{theirs}.resnets.{number}.{b}" for a, b in BLOCK_NAMES.items()})
        names.update({f"{ours}.attention.{a}": f"{theirs}.attentions.{number}.{b}" for a, b in ATTENTION_NAMES.items()})

    # Ours are numbered through, with the layers that change the resolution; theirs by resolution.
    last = len(model.channel_mults) - 1
    for i in range(last + 1):
        down, up = i * (model.blocks + 1), i * (model.blocks + 2)
        for j in range(model.blocks):
            add_level(f"down.{down + j}", f"down_blocks.{i}", j)
        for j in range(model.blocks + 1):
            add_level(f"up.{up + j}", f"up_blocks.{i}", j)
        if i < last:
            names[f"down.{down + model.blocks}.conv"] = f"down_blocks.{i}.downsamplers.0.conv"
            names[f"up.{up + model.blocks + 1}.conv"] = f"up_blocks.{i}.upsamplers.0.conv"
    for number in (0, 1):
        add_level(f"middle.{number}", "mid_block", number)
    return names


def _linear(tensor: Tensor) -> Tensor:
    """Weight or bias of a 1 × 1 convolution as that of a linear layer."""
    return tensor.reshape(tensor.shape[:2]) if tensor.ndim == 4 else tensor


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
