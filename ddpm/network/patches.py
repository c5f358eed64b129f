"""Patches: the U-Net works on a grid of p × p pixels each, between two thin ends that see every pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.network.group_norm import GroupNorm
from ddpm.network.zero_init import zero_init

WIDTH = 16  # channels at full resolution; at 64 × 64 pixels, the two ends are then a small part of the work
GROUPS = 8  # of the 2 · WIDTH channels; with 32, each channel would lose its mean, and the image its brightness


class Pixels(nn.Module):
    """The two ends of a network with patches: pixels to patches, and patches to pixels.

    Plain shuffles (Luhman & Luhman 2022) leave a grid in the samples, because nothing smooths the seams between the
    patches. Here convolutions at full resolution do, which also see the input at full resolution.

    Attributes:
        patch_channels: numbers per patch.
    """

    def __init__(self, patch: int, out_channels: int) -> None:
        super().__init__()
        self.patch = patch
        self.patch_channels = WIDTH * patch**2
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.norm = GroupNorm(GROUPS, 2 * WIDTH)
        self.conv = nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1)
        self.head = zero_init(nn.Conv2d(WIDTH, out_channels, 3, padding=1))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Make patches of (B, 3, H, W): (B, patch_channels, H/p, W/p); and return what `forward` needs again."""
        fine = self.stem(x)
        return F.pixel_unshuffle(fine, self.patch), fine

    def forward(self, patches: Tensor, fine: Tensor) -> Tensor:
        """Make an image, (B, out_channels, H, W), of the network's patches and the second result of `split`."""
        x = torch.cat([F.pixel_shuffle(patches, self.patch), fine], dim=1)
        return self.head(F.silu(self.conv(F.silu(self.norm(x)))))
