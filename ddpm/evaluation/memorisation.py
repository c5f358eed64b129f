"""Whether a model paints its training images again: how near its samples come to them, beside held-out photographs."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm.evaluation.intervals import Interval, bootstrap
from ddpm.evaluation.manifold import nearest

CLOSEST = 0.05  # the fraction of a set in which copies would be found
MIN_HELDOUT = 200  # with fewer images the closest 5 % are less than 10, too few for an interval
IDENTICAL = 1e-4  # of the usual distance; rounding leaves a trace between equal images


@dataclass(frozen=True)
class Memorisation:
    """How near samples come to the training images.

    ratio: nearest-training-image distance of the closest 5 % of the samples over that of the closest 5 % of the
        held-out images: about 1 for new images, 0 for copies. None where that cannot be said.
    reason: why `ratio` is None, else None.
    samples: (K,) int64, numbers of the samples that come closest, the closest first.
    neighbours: (K,) int64, rows of their nearest training images among the training images.
    """

    ratio: Interval | None
    reason: str | None
    samples: np.ndarray
    neighbours: np.ndarray


def memorisation(train: Tensor, heldout: Tensor, fake: Tensor, shown: int) -> Memorisation:
    """Compare the distances of samples and of held-out images to the training images, in feature space.

    Held-out images are what a perfect model would paint: as near to the training images as the photographs of one
    plant are to each other, and no nearer. The idea is that of Meehan et al. 2020, who compare the same distances by
    their ranks; copies of a few images, which move no average, are found in the closest 5 %.

    Args:
        train: (N, D) features, N at least 1.
        heldout: (H, D) features of images that the model has not seen; may be empty.
        fake: (M, D) features of samples.
        shown: K, the number of samples to name.
    """
    near, neighbours = nearest(fake, train)
    order = torch.argsort(near, stable=True)[:shown]
    ratio, reason = None, None
    if len(heldout) < MIN_HELDOUT:
        reason = f"{len(heldout)} held-out images are too few to compare with; it takes {MIN_HELDOUT} (data.holdout)"
    else:
        new = nearest(heldout, train)[0].cpu().numpy()
        if closest(new) < IDENTICAL * np.median(near.cpu().numpy()):
            reason = "held-out images are copies of training images; remove duplicates from the data"
        else:
            ratio = bootstrap(lambda a, b: closest(a) / closest(b), near.cpu().numpy(), new)
    return Memorisation(ratio, reason, order.cpu().numpy(), neighbours[order].cpu().numpy())


def closest(distances: np.ndarray) -> float:
    """Mean of the smallest 5 % of some distances, of one at least."""
    count = max(1, round(CLOSEST * len(distances)))
    return float(np.partition(distances, count - 1)[:count].mean())
