"""The U-Net and its normalisation.

It knows nothing of diffusion and data.
"""

__all__ = ["group_norm", "unet"]
