"""Patches: the U-Net works on a grid of p × p pixels each, between two thin ends that see every pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.network.group_norm import GroupNorm
from ddpm.network.zero_init import zero_init

WIDTH = 16  # channels at full resolution; at 64 × 64 pixels, the two ends are then a small part of the work
GROUPS = 8  # of the 2 · WIDTH channels; with 32, each channel would lose its mean, and the image its brightness
# Weights that models of the first version with patches do not have.
LATER = [f"{layer}.{kind}" for layer in ("skip", "embed", "norm2", "conv2") for kind in ("weight", "bias")]


class Pixels(nn.Module):
    """The two ends of a network with patches: pixels to patches, and patches to pixels.

    Plain shuffles (Luhman & Luhman 2022) leave a grid in the samples, because nothing smooths the seams between the
    patches. Here convolutions at full resolution do, which also see the input at full resolution. Three paths join the
    two, and each makes the network learn faster: one that is normalised, one that is linear, and one that is scaled and
    shifted by the embedding (AdaGN), because at low noise the target is far fainter in the input than the image is.

    Attributes:
        patch_channels: numbers per patch.
    """

    def __init__(self, patch: int, out_channels: int, embed_channels: int) -> None:
        super().__init__()
        self.patch = patch
        self.patch_channels = WIDTH * patch**2
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.norm = GroupNorm(GROUPS, 2 * WIDTH)
        self.conv = nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1)
        self.skip = nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.embed = nn.Linear(embed_channels, 2 * WIDTH)
        self.norm2 = GroupNorm(GROUPS // 2, WIDTH)
        self.conv2 = zero_init(nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        self.head = zero_init(nn.Conv2d(WIDTH, out_channels, 3, padding=1))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Make patches of (B, 3, H, W): (B, patch_channels, H/p, W/p); and return what `forward` needs again."""
        fine = self.stem(x)
        return F.pixel_unshuffle(fine, self.patch), fine

    def forward(self, patches: Tensor, fine: Tensor, embedding: Tensor) -> Tensor:
        """Make an image of the network's patches.

        Args:
            patches: (B, patch_channels, H/p, W/p).
            fine: the second result of `split`.
            embedding: (B, embed_channels), of time step and class.

        Returns:
            (B, out_channels, H, W).
        """
        x = torch.cat([F.pixel_shuffle(patches, self.patch), fine], dim=1)
        h = self.conv(F.silu(self.norm(x)))
        scaled = self.conv2(F.silu(self.norm2(h, self.embed(F.silu(embedding)))))
        return self.head(F.silu(h + self.skip(x) + scaled))
