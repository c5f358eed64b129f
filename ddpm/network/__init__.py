"""The U-Net, its normalisation, and the patches on which it may work.

It knows nothing of diffusion and data.
"""

__all__ = ["group_norm", "patches", "unet", "zero_init"]
