"""Between pixels as files hold them, uint8, and pixels as the network sees them, float32 in [-1, 1]."""

import numpy as np
import torch
from torch import Tensor


def from_uint8(images: Tensor) -> Tensor:
    """Scale uint8 of any shape to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> np.ndarray:
    """Turn (B, 3, H, W) in [-1, 1] into (B, H, W, 3) uint8, rounded as an image file would be."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
