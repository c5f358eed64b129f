"""Pictures of the forward process under every schedule; the same images give the same bytes."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import TABLEAU_COLORS
from matplotlib.figure import Figure

from ddpm.data.dataset import PackedImages
from ddpm.data.pictures import enlarge, grid
from ddpm.data.pixels import from_uint8, to_uint8
from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.schedules import SCHEDULES, log_snr
from ddpm.reporting.figures import default_style, label_grid, save, save_photographs

DPI = 120
FRAMES = 9  # of an image on its way to noise
BATCH = 8  # images of the picture of a batch
COLOURS = dict(zip(SCHEDULES, TABLEAU_COLORS, strict=False))  # ten, for a schedule that is added


@default_style()
def save_curves(timesteps: int, folder: Path) -> None:
    """Write alphas_cumprod.png and log_snr.png, both by step, and snr_shares.png: where the steps are in log-SNR."""
    levels = {name: schedule(timesteps) for name, schedule in SCHEDULES.items()}
    snr = {name: log_snr(alphas_cumprod).numpy() for name, alphas_cumprod in levels.items()}
    edges = {name: np.arange(np.floor(values.min()), np.ceil(values.max()) + 1) for name, values in snr.items()}

    figure, axes = _axes("What is left of the image", "step t", "ᾱ, share of the variance")
    for name in SCHEDULES:
        axes.plot(levels[name], label=name, color=COLOURS[name])
    _save_with_legend(figure, folder / "alphas_cumprod.png")

    figure, axes = _axes("Signal against noise", "step t", "log-SNR")
    axes.axhline(0, color="grey", linewidth=0.8)
    for name in SCHEDULES:
        axes.plot(snr[name], label=name, color=COLOURS[name])
    _save_with_legend(figure, folder / "log_snr.png")

    figure, axes = _axes("Where the steps are", "log-SNR, from noise to image", "share of the steps")
    for name in SCHEDULES:
        share = np.histogram(snr[name], edges[name])[0] / timesteps
        axes.stairs(share, edges[name], label=name, color=COLOURS[name], linewidth=1.5)
    _save_with_legend(figure, folder / "snr_shares.png")


@default_style()
def save_forward_process(image: np.ndarray, timesteps: int, path: Path) -> None:
    """Show one image under growing noise, a row per schedule, the same noise in all frames.

    Args:
        image: (H, W, 3) uint8.
        timesteps: T.
        path: the PNG to write.
    """
    x0 = _scaled(image[None]).expand(FRAMES, -1, -1, -1)
    eps = torch.randn(x0[:1].shape, generator=torch.Generator().manual_seed(0)).expand_as(x0)
    t = torch.linspace(0, timesteps - 1, FRAMES).round().long()
    rows = {name: Diffusion(name, timesteps, "eps").add_noise(x0, t, eps) for name in SCHEDULES}
    _save_rows(rows, [f"t = {step}" for step in t], path)


@default_style()
def save_batch(packed: PackedImages, rows: np.ndarray, timesteps: int, flip: bool, path: Path) -> None:
    """Show images as a training step gets them: drawn at random, half of them mirrored, each with its own noise level.

    Args:
        packed: the data set.
        rows: row numbers of the training images.
        timesteps: T.
        flip: whether training mirrors images.
        path: the PNG to write.
    """
    random = np.random.default_rng(0)
    chosen = random.permutation(rows)[:BATCH]
    mirrored = random.random(len(chosen)) < 0.5 * flip
    t = torch.from_numpy(random.integers(timesteps, size=len(chosen)))
    x0 = _scaled(packed.images[chosen])
    x0 = torch.where(torch.from_numpy(mirrored)[:, None, None, None], x0.flip(-1), x0)
    eps = torch.from_numpy(random.standard_normal(x0.shape, dtype=np.float32))
    noisy = {name: Diffusion(name, timesteps, "eps").add_noise(x0, t, eps) for name in SCHEDULES}
    titles = [f"t = {step}{', ⇄' if mirror else ''}" for step, mirror in zip(t, mirrored, strict=True)]
    _save_rows({"image": x0} | noisy, titles, path)


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure((6.4, 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def _save_with_legend(figure: Figure, path: Path) -> None:
    figure.axes[0].legend()
    save(figure, path)


def _save_rows(rows: dict[str, torch.Tensor], titles: list[str], path: Path) -> None:
    """Draw rows of images (B, 3, H, W) in [-1, 1] with their names on the left and one title for each column."""
    images = enlarge(np.concatenate([to_uint8(x) for x in rows.values()]))
    save_photographs(label_grid(grid(images, len(titles)), list(rows), titles), path)


def _scaled(images: np.ndarray) -> torch.Tensor:
    # Copies, because PyTorch warns of read-only arrays such as the memory map.
    return from_uint8(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2))
