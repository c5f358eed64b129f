"""Transformed images for small data sets, which the network gets as input (Karras et al. 2022, appendix F.2, table 6).

With the input that an image was turned, the network learns what turned images look like; with zeros, as in sampling, it
generates only images that were not. So the transformations do not leak into the samples.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LABELS = 8  # numbers that describe what was done to an image; all are 0 where nothing was
LOG_SCALE = 0.2 * math.log(2)  # one standard deviation enlarges, or stretches, by 2^0.2
SHIFT = 0.125  # of the side, one standard deviation


def draw(count: int, probability: float, device: torch.device) -> Tensor:
    """Draw what is done to each image: five transformations, each with the probability, independently.

    They are, in this order: a flip upside down, which then happens to every second image; a change of size; a turn by
    any angle; a stretch, with a squeeze across, along the x-axis or, for every second image, along any; a shift.
    Mirroring left to right, the sixth of the paper, is `train.flip`, which is no input of the network.

    Returns:
        (count, 8) float32: 1 for a flip; the change of size as a power of 2^0.2; cos - 1 and sin of the angle, from the
        x-axis to the y-axis, which points down; the power of the stretch times cos and sin of twice its axis; the shift
        in eighths of a side, in x and in y.
    """
    flip, scale, turn, stretch, shift = (torch.rand(5, count, device=device) < probability).float()
    coin, angle, axis, turned = torch.rand(4, count, device=device)
    size, strength, x, y = torch.randn(4, count, device=device)
    angle = 2 * math.pi * (angle - 0.5) * turn
    # Twice the axis, unlike the paper: an axis and its opposite are the same, and must have the same label.
    axis, strength = 2 * math.pi * axis * (turned < 0.5), strength * stretch
    labels = [
        flip * (coin < 0.5),
        size * scale,
        angle.cos() - 1,
        angle.sin(),
        strength * axis.cos(),
        strength * axis.sin(),
        x * shift,
        y * shift,
    ]
    return torch.stack(labels, dim=1)


def transform(images: Tensor, labels: Tensor) -> Tensor:
    """Apply to each image what its label describes, by one bicubic interpolation, mirrored beyond the edge.

    Args:
        images: (B, C, S, S) float32 in [-1, 1].
        labels: (B, 8), see `draw`.

    Returns:
        Like images; those whose label is zero are the same bit for bit.
    """
    origins = _origins(labels, images.shape[-1])
    moved = F.grid_sample(images, origins, mode="bicubic", padding_mode="reflection", align_corners=False)
    # All are computed and some are thrown away, because to choose those that move, a GPU would have to be waited for.
    return torch.where(labels.any(dim=1).view(-1, 1, 1, 1), moved.clamp(-1, 1), images)


def _origins(labels: Tensor, side: int) -> Tensor:
    """Where each pixel's centre comes from, (B, S, S, 2) of x and y in [-1, 1]: from the last transformation back."""
    # Number by number, because products of matrices would be TF32 on a GPU, wrong by a part of a pixel.
    flip, size, cosine, sine, along, across, shift_x, shift_y = labels.view(-1, LABELS, 1, 1).unbind(dim=1)
    centres = (torch.arange(side, device=labels.device) + 0.5) * (2 / side) - 1
    x, y = centres - 2 * SHIFT * shift_x, centres.view(-1, 1) - 2 * SHIFT * shift_y
    # The stretch is exp(M), M = LOG_SCALE · ((along, across), (across, -along)), whose square is a multiple of 1: its
    # inverse is cosh|M| - sinh|M| / |M| · M.
    strength = torch.hypot(along, across)
    grow, mix = torch.cosh(LOG_SCALE * strength), torch.sinh(LOG_SCALE * strength) / strength.clamp(min=1e-20)
    x, y = grow * x - mix * (along * x + across * y), grow * y - mix * (across * x - along * y)
    cosine = cosine + 1
    x, y = cosine * x + sine * y, cosine * y - sine * x
    shrink = torch.exp(-LOG_SCALE * size)
    return torch.stack([x * shrink, y * shrink * (1 - 2 * flip)], dim=-1)
