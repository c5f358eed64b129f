"""The network: the U-Net of Ho et al. 2020 with scale-shift conditioning (Dhariwal & Nichol 2021)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddpm.config import ModelConfig
from ddpm.network.group_norm import GroupNorm
from ddpm.network.patches import LATER, Pixels
from ddpm.network.zero_init import zero_init


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """Sines and cosines of t at geometric frequencies from 1 down to almost 1e-4 (Vaswani et al. 2017, section 3.5).

    Args:
        t: (B,) int64.
        channels: an even number.

    Returns:
        (B, channels) float32.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def group_norm(channels: int, config: ModelConfig) -> GroupNorm:
    """GroupNorm with 32 groups, or as many as divide the network's width; the same everywhere, as diffusers has it."""
    return GroupNorm(math.gcd(32, config.channels), channels)


class ResidualBlock(nn.Module):
    """Two convolutions; the embedding scales and shifts the second normalisation (AdaGN)."""

    def __init__(self, in_channels: int, out_channels: int, embed_channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, config)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embed = nn.Linear(embed_channels, 2 * out_channels)
        self.norm2 = group_norm(out_channels, config)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) and (B, embed_channels) to (B, out_channels, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h, self.embed(F.silu(embedding)))
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """Multi-head self-attention between all pixels."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.heads = max(1, channels // config.head_channels)
        self.norm = group_norm(channels, config)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, 3, self.heads, channels // self.heads, height * width)
        # Each (B, heads, H * W, head_channels); contiguous, because the fast kernels refuse anything else.
        q, k, v = qkv.transpose(-1, -2).contiguous().unbind(dim=1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.out(h.reshape(batch, channels, height, width))


class Downsample(nn.Module):
    """Halve the image by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        return self.conv(x)


class Upsample(nn.Module):
    """Double the image by nearest neighbours and a convolution; transposed convolutions leave checkerboards."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNetBlock(nn.Module):
    """A residual block, and self-attention where this resolution has it."""

    def __init__(self, in_channels: int, out_channels: int, embed_channels: int, config: ModelConfig, attend: bool):
        super().__init__()
        self.block = ResidualBlock(in_channels, out_channels, embed_channels, config)
        self.attention = Attention(out_channels, config) if attend else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map (B, in_channels, H, W), some of them in `skip`, to (B, out_channels, H, W)."""
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.attention(self.block(x, embedding))


class UNet(nn.Module):
    """Noisy image, time step and optional class in; prediction of the same size out.

    Every resolution has `blocks` times a `UNetBlock` on the way down and one more on the way up, each of which takes in
    the output of its counterpart.

    Attributes:
        checkpoint_activations: keep only the inputs of each block for the backward pass, and recompute the rest, with
            the same dropout (Chen et al. 2016).
    """

    def __init__(
        self,
        config: ModelConfig,
        image_size: int,
        num_classes: int | None = None,
        out_channels: int = 3,
        none_class: bool = False,
        augment_labels: int = 0,
    ) -> None:
        """Build the network.

        Args:
            config: widths, depth and attention.
            image_size: side of the images, pixels.
            num_classes: None for an unconditional network.
            out_channels: 3, or 6 to predict a variance as well.
            none_class: let a conditional network have one more class, which stands for no class at all, so that it
                can be guided (Ho & Salimans 2022).
            augment_labels: for training alone, how many numbers describe what was done to an image, see `augment.draw`.
        """
        super().__init__()
        width = config.channels
        widths = [width * mult for mult in config.channel_mults]
        attends = [side in config.attention for side in config.resolutions(image_size)]
        embed = 4 * width

        self.checkpoint_activations = False
        self.channels = width
        self.time_mlp = nn.Sequential(nn.Linear(width, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.class_embedding = nn.Embedding(num_classes + none_class, embed) if num_classes is not None else None
        self.none_class = num_classes if none_class else None
        self.pixels = Pixels(config.patch, out_channels, embed) if config.patch > 1 else None
        self.stem = nn.Conv2d(self.pixels.patch_channels if self.pixels else 3, width, 3, padding=1)

        self.down = nn.ModuleList()
        skips, channels = [width], width
        for i, (out, attend) in enumerate(zip(widths, attends, strict=True)):
            for _ in range(config.blocks):
                self.down.append(UNetBlock(channels, out, embed, config, attend))
                channels = out
                skips.append(channels)
            if i < len(widths) - 1:
                self.down.append(Downsample(channels))
                skips.append(channels)

        bottom_attends = bool(config.attention)
        self.middle = nn.ModuleList(
            [
                UNetBlock(channels, channels, embed, config, bottom_attends),
                UNetBlock(channels, channels, embed, config, attend=False),
            ]
        )

        self.up = nn.ModuleList()
        for i, (out, attend) in reversed(list(enumerate(zip(widths, attends, strict=True)))):
            for _ in range(config.blocks + 1):
                self.up.append(UNetBlock(channels + skips.pop(), out, embed, config, attend))
                channels = out
            if i > 0:
                self.up.append(Upsample(channels))

        if self.pixels is None:
            last = zero_init(nn.Conv2d(channels, out_channels, 3, padding=1))
        else:
            last = nn.Conv2d(channels, self.pixels.patch_channels, 3, padding=1)
        self.head = nn.Sequential(group_norm(channels, config), nn.SiLU(), last)
        # Without bias, so that labels of zero are the same as none. Last, so that the other weights start as without.
        self.augment = zero_init(nn.Linear(augment_labels, width, bias=False)) if augment_labels else None

    def forward(
        self, x: Tensor, t: Tensor, labels: Tensor | None = None, augmentations: Tensor | None = None
    ) -> Tensor:
        """Predict the diffusion's target.

        Args:
            x: (B, 3, H, W) float32.
            t: (B,) int64 time steps.
            labels: (B,) int64 classes, for a conditional network only.
            augmentations: (B, augment_labels) float32, in training; without them, the images are as they are.

        Returns:
            (B, out_channels, H, W).
        """
        embedding = timestep_embedding(t, self.channels)
        if self.augment is not None and augmentations is not None:  # where Karras et al. 2022 add them
            embedding = embedding + self.augment(augmentations)
        embedding = self.time_mlp(embedding)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(labels)
        x, *fine = self.pixels.split(x) if self.pixels is not None else (x,)
        x = self.stem(x)
        skips = [x]
        for layer in self.down:
            x = self._block(layer, x, embedding) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
        for layer in self.middle:
            x = self._block(layer, x, embedding)
        for layer in self.up:
            x = self._block(layer, x, embedding, skips.pop()) if isinstance(layer, UNetBlock) else layer(x)
        x = self.head(x)
        return x if self.pixels is None else self._block(self.pixels, x, *fine, embedding)

    def sampling_weights(self) -> dict[str, Tensor]:
        """All of the state that sampling needs: without the layer for augmentations, of which it has none."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("augment.")}

    def load_sampling_weights(self, weights: dict[str, Tensor]) -> None:
        """Take what `sampling_weights` answered, as it is and without a copy.

        Models of earlier versions have fewer layers around their patches; with zeros there, they are what they were.

        Raises:
            RuntimeError: these are no weights of this network.
        """
        if "pixels.conv.weight" in weights and "pixels.conv2.weight" not in weights:
            own = self.sampling_weights()
            weights = {f"pixels.{name}": torch.zeros(own[f"pixels.{name}"].shape) for name in LATER} | weights
        self.load_state_dict(weights, assign=True)

    def _block(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        if self.checkpoint_activations and self.training:
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


def count_parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
