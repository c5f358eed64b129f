"""Training: batches, augmentation, one optimisation step, the averaged weights, the loop, loss by noise level.

It knows nothing of DVC and MLflow.
"""

__all__ = ["augment", "batches", "divergence", "ema", "loop", "noise_levels", "setup", "step", "times"]
