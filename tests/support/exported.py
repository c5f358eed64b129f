"""Models with all that an export asks for, and the command."""

import sys

import pytest
import torch

from ddpm import __main__
from ddpm.config import ModelConfig
from ddpm.model.model_file import save_model
from ddpm.network.unet import UNet
from tests.support.networks import awake

CLASSES = ["daisy", "rose", "thistle"]
UNCONDITIONAL = {
    "narrow, attention at one side": ("linear", "eps", "fixed", 16, {"channels": 16, "attention": [8]}),
    "deep, attention at two sides": (
        "cosine", "v", "learned", 16, {"channels": 24, "channel_mults": [1, 1, 2], "blocks": 2, "attention": [8, 4]}
    ),
    "without attention": ("sigmoid", "x0", "fixed", 32, {"attention": [], "dropout": 0.3}),
    # Not eps: at the end of this schedule it magnifies each library's own rounding in the network 1,800 times.
    "single heads of two widths": ("sigmoid", "v", "fixed", 16, {"attention": [16, 8], "head_channels": 64}),
    "one resolution": ("linear", "x0", "learned", 16, {"channel_mults": [1], "attention": [16]}),
}  # fmt: skip
CONDITIONAL = {
    "conditional": ("cosine", "eps", "fixed", 16, {"conditional": True}),
    "conditional, learned variance": (
        "linear", "v", "learned", 32,
        {"channels": 8, "channel_mults": [1, 2, 4], "attention": [16], "head_channels": 16, "conditional": True},
    ),
}  # fmt: skip
NETWORKS = UNCONDITIONAL | CONDITIONAL


def write_model(
    folder,
    schedule="linear",
    target="eps",
    variance="fixed",
    size=16,
    changes=None,
    source="flowers102",
    timesteps=1000,
):
    """Save a network whose answers are not all zero; returns its folder."""
    values = {"channels": 8, "channel_mults": [1, 2], "blocks": 1, "attention": [8], "head_channels": 8, "dropout": 0.0}
    config = ModelConfig(**values | {"conditional": False} | (changes or {}))
    channels = 6 if variance == "learned" else 3
    # With the class "none", as a training with label dropout leaves it.
    unet = UNet(config, size, len(CLASSES) if config.conditional else None, channels, none_class=config.conditional)
    awake(unet)
    with torch.no_grad():
        unet.head[2].weight[3:] *= 0.2  # a learned variance that stays between its bounds
    training = {
        "epochs": 7, "seed": 3, "source": source, "images": 7370, "heldout_images": 819, "steps": 406,
        "parameters": 39_600_000,
        "splits": ["train", "val"] if source == "flowers102" else None,
        "train": {"batch_size": 128, "lr": 2e-4, "ema_decay": 0.9999, "flip": True},
    }  # fmt: skip
    save_model(
        folder,
        unet.state_dict(),
        {
            "model": config.model_dump(),
            "diffusion": {"timesteps": timesteps, "target": target, "variance": variance},
            "schedule": schedule,
            "image_size": size,
            "class_names": CLASSES,
            "class_counts": [5, 5, 5],
            "training": training,
        },
    )
    return folder


def export(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["ddpm", "export", *map(str, arguments)])
    __main__.main()
