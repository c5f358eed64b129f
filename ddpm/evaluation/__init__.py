"""Scores: feature networks, FID, KID, precision and recall, their intervals, memorisation.

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
    "weights",
]
