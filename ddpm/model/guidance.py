"""What the network predicts for a noisy image, with classifier-free guidance (Ho & Salimans 2022)."""

from contextlib import nullcontext

import torch
from torch import Tensor

from ddpm.diffusion.process import Diffusion
from ddpm.network.unet import UNet


def predict(
    unet: UNet,
    diffusion: Diffusion,
    x: Tensor,
    t: Tensor,
    labels: Tensor | None,
    guidance: float = 1.0,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Ask the network once (Ho & Salimans 2022, eq. 6, where `guidance` is called 1 + w).

    Args:
        unet: the network; for another guidance than 1, one with a `none_class`.
        diffusion: which takes its output apart.
        x: (B, 3, H, W) float32.
        t: (B,) int64.
        labels: (B,) int64; None for an unconditional network.
        guidance: 1 follows the class, more exaggerates it, 0 ignores it. Only values other than these two need two
            outputs, which are those for one batch of twice the size.
        dtype: in which the network computes (`autocast_dtype`); None is float32.

    Returns:
        The prediction of the target and v (`Diffusion.split`), both (B, 3, H, W) float32. v is that for the class: a
        place between two bounds, which guidance would push beyond them.
    """
    if labels is None or guidance == 1:
        return diffusion.split(_output(unet, x, t, labels, dtype))
    assert unet.none_class is not None, "a network that was never trained without a class"
    none = torch.full_like(labels, unet.none_class)
    if guidance == 0:
        return diffusion.split(_output(unet, x, t, none, dtype))
    output = _output(unet, x.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([labels, none]), dtype)
    (of_class, v), (of_none, _) = map(diffusion.split, output.chunk(2))
    return of_none + guidance * (of_class - of_none), v


def _output(unet: UNet, x: Tensor, t: Tensor, labels: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    with torch.autocast(x.device.type, dtype) if dtype else nullcontext():
        output = unet(x, t, labels)
    return output.float()  # guidance and the samplers take differences, of which bf16 would leave little
