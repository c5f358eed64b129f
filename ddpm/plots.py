"""Figures of the report, drawn by matplotlib; the same data gives the same bytes."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ddpm.diffusion import Diffusion
from ddpm.figures import default_style, save
from ddpm.pixels import from_uint8, to_uint8
from ddpm.schedules import SCHEDULES

DPI = 120


@default_style()
def save_curves(train: pd.DataFrame, heldout: pd.DataFrame, path: Path) -> None:
    """Draw the training and the held-out loss by epoch.

    Args:
        train: columns epoch, loss, grad_norm, learning_rate; one row per point.
        heldout: columns epoch, loss; may be empty.
        path: the PNG to write.
    """
    figure = Figure((10, 3.6), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(train["epoch"], train["loss"], label="training images", color="tab:blue", alpha=0.6, linewidth=1)
    if len(heldout):
        left.plot(heldout["epoch"], heldout["loss"], label="held-out images, averaged weights", color="tab:orange")
    left.set(xlabel="epoch", ylabel="loss (mean squared error)", yscale="log", title="Loss")
    left.legend()
    right.plot(train["epoch"], train["grad_norm"], color="tab:green", linewidth=1)
    right.set(xlabel="epoch", ylabel="gradient norm before clipping", yscale="log", title="Gradient norm")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save(figure, path)


@default_style()
def save_forward_process(image: np.ndarray, timesteps: int, path: Path, frames: int = 9) -> None:
    """Show one image under growing noise, a row per schedule, the same noise in each.

    Args:
        image: (H, W, 3) uint8.
        timesteps: T.
        path: the PNG to write.
        frames: pictures per row, from the least noise (t = 0) to the most (t = T - 1).
    """
    x0 = from_uint8(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    steps = np.linspace(0, timesteps - 1, frames).round().astype(int)
    figure = Figure((0.8 * frames, 2.8), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(SCHEDULES), frames)
    for row, schedule in zip(axes, SCHEDULES, strict=True):
        diffusion = Diffusion(schedule, timesteps, "eps")
        for axis, step in zip(row, steps, strict=True):
            axis.imshow(to_uint8(diffusion.add_noise(x0, torch.tensor([step]), eps))[0])
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(schedule)
    for axis, step in zip(axes[0], steps, strict=True):
        axis.set_title(f"t = {step}", fontsize=7)
    save(figure, path)
