"""The loss at each noise level: where on the way from image to noise a network errs."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.schedules import log_snr
from ddpm.training.batches import ImageSet

BINS = 20  # ranges of t, equally wide
IMAGES = 500  # at most; each goes through the network once in every bin


@torch.no_grad()
def loss_by_noise_level(
    network: Callable[[Tensor, Tensor, Tensor], Tensor], diffusion: Diffusion, images: ImageSet, batch_size: int
) -> pd.DataFrame:
    """Mean L_simple of a network in each range of t, in float32 (on GPUs that have it: TF32).

    Images, noise and time steps are the same at every call and for every seed, and each image has the same noise in all
    bins, so that differences between bins, schedules and trainings are not those of luck. No other random numbers
    change.

    Args:
        network: from x_t (B, 3, H, W) float32, t (B,) int64 and classes (B,) int64 to its output, see
            `Diffusion.split`; in evaluation mode.
        diffusion: on the device of the images.
        images: at least one; of more than 500, 500 evenly spaced ones are taken.
        batch_size: images at a time.

    Returns:
        A row per bin (20, or T if that is less): t_low and t_high, its first and last step; log_snr, the mean of its
        steps; loss, the mean over images.
    """
    device = images.images.device
    count = min(IMAGES, len(images))
    rows = torch.from_numpy(np.linspace(0, len(images) - 1, count).round().astype(np.int64))
    # Drawn on the CPU, so that they are the same for every device.
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((count, *images.images.shape[1:]), generator=generator)
    places = (torch.randperm(count, generator=generator) + 0.5) / count  # of each image's t in every bin
    edges = np.linspace(0, diffusion.timesteps, min(BINS, diffusion.timesteps) + 1).round().astype(int).tolist()
    levels = log_snr(diffusion.alphas_cumprod)

    table = []
    for low, end in pairwise(edges):
        times, total = low + (places * (end - low)).long(), 0.0
        for batch in torch.split(torch.arange(count), batch_size):
            x0, labels = images.batch(rows[batch])
            t, eps = times[batch].to(device), noise[batch].to(device)
            prediction, _ = diffusion.split(network(diffusion.add_noise(x0, t, eps), t, labels))
            total += diffusion.loss(prediction, x0, t, eps).double().sum().item()
        table.append({"t_low": low, "t_high": end - 1, "log_snr": levels[low:end].mean().item(), "loss": total / count})
    return pd.DataFrame(table)
