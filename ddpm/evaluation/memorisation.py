"""Whether a model reproduces its training images: how near its samples come to them, beside held-out photographs."""

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
        held-out images: about 1 for new images, 0 for copies. None where that is not known.
    reason: why `ratio` is None, else None.
    duplicates: number of held-out images that are training images, or their mirrors; they are left out.
    samples: (K,) int64, numbers of the samples that come closest, the closest first.
    neighbours: (K,) int64, rows of their nearest training images among the training images.
    """

    ratio: Interval | None
    reason: str | None
    duplicates: int
    samples: np.ndarray
    neighbours: np.ndarray


def memorisation(train: Tensor, heldout: Tensor, fake: Tensor, shown: int) -> Memorisation:
    """Compare the distances of samples and of held-out images to the training images, in feature space.

    Held-out images are what a perfect model would generate: as near to the training images as the photographs of one
    plant are to each other, and no nearer. The idea is that of Meehan et al. 2020, who compare the same distances by
    their ranks; copies of a few images, which move no average, are found in the closest 5 %.

    Args:
        train: (2 N, D) features of the training images and then of their mirrors, which `train.flip` trains with; N at
            least 1.
        heldout: (H, D) features of images that the model has not seen; may be empty.
        fake: (M, D) features of samples.
        shown: K, the number of samples to name.
    """
    distance, rows = nearest(fake, train)
    order = torch.argsort(distance, stable=True)[:shown]
    near = distance.cpu().numpy()
    new = nearest(heldout, train)[0].cpu().numpy() if len(heldout) else np.zeros(0)
    # A copied photograph shows nothing of what is new, and a few of them would make any model look free of copies.
    usual = max(np.median(near), np.median(new)) if len(new) else 0.0
    kept = new[new > IDENTICAL * usual]
    ratio, reason = None, None
    if len(kept) < MIN_HELDOUT:
        without = f", without {len(new) - len(kept)} that are duplicates of training images," * (len(kept) < len(new))
        reason = (
            f"{len(kept)} held-out images{without} are too few to compare with; it takes {MIN_HELDOUT} (data.holdout)"
        )
    else:
        ratio = bootstrap(lambda a, b: closest(a) / closest(b), near, kept)
    neighbours = rows[order] % (len(train) // 2)
    return Memorisation(ratio, reason, len(new) - len(kept), order.cpu().numpy(), neighbours.cpu().numpy())


def closest(distances: np.ndarray) -> float:
    """Mean of the smallest 5 % of some distances, of one at least."""
    count = max(1, round(CLOSEST * len(distances)))
    return float(np.partition(distances, count - 1)[:count].mean())
