"""A trained model: its folder, the sampling API, classifier-free guidance, the format of diffusers.

It knows nothing of training and scores.
"""

__all__ = ["diffusers_format", "generation", "guidance", "model_file", "trained"]
