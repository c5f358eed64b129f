"""Figures of the report, drawn by matplotlib; the same data gives the same bytes."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ddpm.reporting.figures import default_style, save

DPI = 120


@default_style()
def save_curves(
    train: pd.DataFrame, heldout: pd.DataFrame, path: Path, reference: tuple[str, pd.DataFrame] | None = None
) -> None:
    """Draw the training and the held-out loss by epoch.

    Args:
        train: columns epoch, loss, grad_norm, learning_rate; one row per point.
        heldout: columns epoch, loss; may be empty.
        path: the PNG to write.
        reference: what the held-out loss is to be seen beside: its name, and columns epoch, loss.
    """
    figure = Figure((10, 3.6), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(train["epoch"], train["loss"], label="training images", color="tab:blue", alpha=0.6, linewidth=1)
    if len(heldout):
        left.plot(heldout["epoch"], heldout["loss"], label="held-out images, averaged weights", color="tab:orange")
    if reference:
        name, curve = reference
        left.plot(curve["epoch"], curve["loss"], label=name, color="0.4", linewidth=1, linestyle="--")
    left.set(xlabel="epoch", ylabel="loss (mean squared error)", yscale="log", title="Loss")
    left.legend()
    right.plot(train["epoch"], train["grad_norm"], color="tab:green", linewidth=1)
    right.set(xlabel="epoch", ylabel="gradient norm before clipping", yscale="log", title="Gradient norm")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save(figure, path)


@default_style()
def save_noise_levels(table: pd.DataFrame, path: Path) -> None:
    """Draw the loss by noise level.

    Args:
        table: columns t_low, t_high, log_snr, loss; see `noise_levels.loss_by_noise_level`.
        path: the PNG to write.
    """
    figure = Figure((6.4, 3.8), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    edges = np.append(table["t_low"], table["t_high"].iloc[-1] + 1)
    axes.stairs(table["loss"], edges, baseline=None, color="tab:orange", linewidth=1.5)
    axes.set(xlabel="step t", ylabel="loss (mean squared error)", yscale="log", title="Loss by noise level")
    axes.grid(alpha=0.3)
    some = table.iloc[::4]
    top = axes.twiny()
    top.set_xlim(axes.get_xlim())
    top.set_xticks((some["t_low"] + some["t_high"]) / 2, [f"{level:.1f}" for level in some["log_snr"]])
    top.set_xlabel("log-SNR")
    save(figure, path)
