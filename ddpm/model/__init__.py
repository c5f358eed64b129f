"""A trained model: its folder, the sampling API, classifier-free guidance, the format of diffusers, the hub.

It knows nothing of training and scores.
"""

__all__ = ["diffusers_format", "generation", "guidance", "hub", "model_file", "trained"]
