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

    Kynkäänniemi et al. 2019, eq. 1.

    Attributes:
        neighbours: k, or less where there are fewer images.
    """

    def __init__(self, features: Tensor, neighbours: int = NEIGHBOURS) -> None:
        """Measure the balls.

        Args:
            features: (N, D), N at least 2.
            neighbours: k; with N of k or less, the balls reach to the last neighbour there is.
        """
        self._features = features
        self.neighbours = min(neighbours, len(features) - 1)
        # The nearest of all is the image itself. (Not `kthvalue`, which older versions of PyTorch refuse on a GPU after
        # `devices.make_deterministic`.)
        nearest_few = (
            chunk.topk(self.neighbours + 1, dim=1, largest=False).values for chunk in distances(features, features)
        )
        self._radii = torch.cat([few.amax(dim=1) for few in nearest_few])

    def covers(self, features: Tensor) -> Tensor:
        """Return for each row whether it lies in the part, (M,) bool."""
        return torch.cat([(chunk <= self._radii).any(dim=1) for chunk in distances(features, self._features)])

    def hits(self, features: Tensor, draws: Tensor) -> Iterator[Tensor]:
        """Count, of each draw, the rows that lie inside each ball, in chunks of balls: (≤ 1024, R) float32.

        Args:
            features: (M, D).
            draws: (R, M) bool, which rows a draw has.
        """
        chosen = draws.T.float()
        chunks = zip(distances(self._features, features), torch.split(self._radii, CHUNK), strict=True)
        for chunk, radii in chunks:
            yield (chunk < radii[:, None]).float() @ chosen


def density_coverage(real: Tensor, fake: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Compute density and coverage of each draw of samples (Naeem et al. 2020, eq. 3 and 5), with k = 5.

    Density counts the balls of real images around each sample, over k (or less, of fewer images); coverage is the
    fraction of real images with a sample in their ball. Both measure by the real images' balls alone, so that a stray
    sample widens nothing.

    Args:
        real: (N, D) features.
        fake: (M, D) features of the same extractor on the same device.
        draws: (R, M) bool on that device, which samples a draw has.

    Returns:
        (R,) float64 each; density may be above 1.
    """
    inside, covered = torch.zeros(2, len(draws), dtype=torch.float64, device=real.device)
    balls = Manifold(real, DENSITY_NEIGHBOURS)
    for counts in balls.hits(fake, draws):
        inside += counts.double().sum(dim=0)
        covered += (counts > 0).sum(dim=0)
    return inside / (balls.neighbours * draws.sum(dim=1)), covered / len(real)


def precision_recall(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """Compute precision and recall (Kynkäänniemi et al. 2019, eq. 2), with k = 3.

    Precision is the fraction of generated images among the real ones' part of feature space, recall the fraction of
    real images in the generated ones' part: quality, and variety.

    Args:
        real: (N, D) features.
        fake: (M, D) features of the same extractor on the same device.
    """
    precision = Manifold(real).covers(fake).double().mean()
    recall = Manifold(fake).covers(real).double().mean()
    return float(precision), float(recall)
