"""Small networks whose answers are not all zero, as those of a fresh one are."""

import torch

from ddpm.model.model_file import save_model
from ddpm.network.unet import UNet


def awake(unet: UNet) -> UNet:
    """Give the layers that start at zero some weights."""
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return unet.eval()


def write_model(folder, tiny_model, conditional=False, variance="fixed", none_class=True, target="eps"):
    """Save a network whose answers are not all zero.

    Where eps is the target, random weights turn roundings into pixels: x_0 is their error over a vanishing signal.
    """
    config = tiny_model.model_copy(update={"conditional": conditional})
    torch.manual_seed(5)
    channels = 6 if variance == "learned" else 3
    unet = UNet(config, 16, 3 if conditional else None, channels, none_class=conditional and none_class)
    save_model(
        folder,
        awake(unet).state_dict(),
        {
            "model": config.model_dump(),
            "diffusion": {"timesteps": 1000, "target": target, "variance": variance},
            "schedule": "cosine",
            "image_size": 16,
            "class_names": ["rose", "tulip", "Sunflower"],
            "class_counts": [10**6, 1, 99 * 10**6],  # so rare that it is never drawn, and yet known
        },
    )
    return folder
