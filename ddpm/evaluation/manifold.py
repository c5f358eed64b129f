"""Which images lie near which others: precision and recall, density and coverage, the nearest training images."""

from collections.abc import Iterator

import torch
from torch import Tensor

NEIGHBOURS = 3  # k of Kynkäänniemi et al. 2019, section 2
DENSITY_NEIGHBOURS = 5  # k of Naeem et al. 2020, section 4
CHUNK = 1024  # rows of a matrix of distances at a time


def distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Euclidean distances of each row of x to all of y, in chunks of rows: (≤ 1024, M) float64.

    float64, because |x|² - 2 x·y + |y|² loses most digits of a small distance.
    """
    y = y.double()
    for rows in torch.split(x, CHUNK):
        yield torch.cdist(rows.double(), y, compute_mode="use_mm_for_euclid_dist")


def nearest(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the nearest row of y and its number, for each row of x: (N,) float64 and (N,) int64."""
    found = [chunk.min(dim=1) for chunk in distances(x, y)]
    return torch.cat([chunk.values for chunk in found]), torch.cat([chunk.indices for chunk in found])


class Manifold:
    """The part of feature space that a set of images covers: a ball around each, up to its k-th neighbour.

    Kynkäänniemi et al. 2019, eq. 1. The neighbours are found once, for all scores that ask for balls of the set.

    Attributes:
        features: (N, D), of the images.
    """

    def __init__(self, features: Tensor) -> None:
        """Measure how far the neighbours are.

        Args:
            features: (N, D), N at least 2.
        """
        self.features = features
        self._most = min(max(NEIGHBOURS, DENSITY_NEIGHBOURS), len(features) - 1)
        # Of all rows the nearest is the image itself. (Not `kthvalue`, which older versions of PyTorch refuse on a GPU
        # after `devices.make_deterministic`.)
        chunks = distances(features, features)
        self._nearest = torch.cat([chunk.topk(self._most + 1, largest=False, sorted=True).values for chunk in chunks])

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.features)

    def neighbours(self, wanted: int) -> int:
        """Return the k that balls of so many neighbours have: less where there are fewer images."""
        return min(wanted, self._most)

    def covers(self, features: Tensor) -> Tensor:
        """Return for each row whether it lies in a ball of k = 3, (M,) bool."""
        radii = self._radii(NEIGHBOURS)
        return torch.cat([(chunk <= radii).any(dim=1) for chunk in distances(features, self.features)])

    def hits(self, features: Tensor, draws: Tensor) -> Iterator[Tensor]:
        """Count, of each draw, the rows that lie inside each ball of k = 5, in chunks of balls: (≤ 1024, R) float32.

        Args:
            features: (M, D).
            draws: (R, M) bool, which rows a draw has.
        """
        chosen = draws.T.float()
        parts = torch.split(self._radii(DENSITY_NEIGHBOURS), CHUNK)
        chunks = zip(distances(self.features, features), parts, strict=True)
        for chunk, radii in chunks:
            yield (chunk < radii[:, None]).float() @ chosen

    def _radii(self, wanted: int) -> Tensor:
        return self._nearest[:, self.neighbours(wanted)]


def density_coverage(real: Manifold, fake: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Compute density and coverage of each draw of samples (Naeem et al. 2020, eq. 3 and 5), with k = 5.

    Density counts the balls of real images around each sample, over k (or less, of fewer images); coverage is the
    fraction of real images with a sample in their ball. Both measure by the real images' balls alone, so that a stray
    sample widens nothing.

    Args:
        real: the balls of the real images.
        fake: (M, D) features of the same extractor on the same device.
        draws: (R, M) bool on that device, which samples a draw has.

    Returns:
        (R,) float64 each; density may be above 1.
    """
    inside, covered = torch.zeros(2, len(draws), dtype=torch.float64, device=fake.device)
    for counts in real.hits(fake, draws):
        inside += counts.double().sum(dim=0)
        covered += (counts > 0).sum(dim=0)
    return inside / (real.neighbours(DENSITY_NEIGHBOURS) * draws.sum(dim=1)), covered / len(real)


def precision_recall(real: Manifold, fake: Manifold) -> tuple[float, float]:
    """Compute precision and recall (Kynkäänniemi et al. 2019, eq. 2), with k = 3.

    Precision is the fraction of generated images among the real ones' part of feature space, recall the fraction of
    real images in the generated ones' part: quality, and variety.

    Args:
        real: the balls of the real images.
        fake: those of the samples, from features of the same extractor on the same device.
    """
    precision = real.covers(fake.features).double().mean()
    recall = fake.covers(real.features).double().mean()
    return float(precision), float(recall)
