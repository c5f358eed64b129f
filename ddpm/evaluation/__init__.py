"""Scores: feature networks, FID, KID, precision, recall, density, coverage, their intervals, memorisation, the verdict.

It knows nothing of the model that generated the images.
"""

__all__ = [
    "efficientnet",
    "features",
    "intervals",
    "manifold",
    "memorisation",
    "patch_grid",
    "protocol",
    "quick_scores",
    "results",
    "scores",
    "verdict",
    "weights",
]
