"""Distances between two sets of features: FID and KID, in float64."""

import numpy as np
import torch
from torch import Tensor

from ddpm.runtime.errors import InputError

MIN_IMAGES = 4  # of each set: two blocks of two
KID_BLOCKS = 10
KID_BLOCK_SIZE = 1000  # the subset size of Bińkowski et al. 2018


class FrechetDistance:
    """Squared Fréchet distance |m1 - m2|² + Tr(C1 + C2 - 2 (C1 C2)^½) of real and generated features.

    Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6; C1 and C2 are unbiased. The trace of the root is the sum of
    the singular values of A2 R with C1 = R Rᵀ, C2 = A2ᵀ A2. They are real and stable where the matrix root of C1 C2 is
    not: with fewer images than features, C1 and C2 are singular. What belongs to the real images, and A2 R, are
    calculated once for the distances to any parts of the generated images.
    """

    def __init__(self, real: Tensor, fake: Tensor) -> None:
        """Prepare the distances.

        Args:
            real: (N, D) features, N at least 2.
            fake: (M, D) features of the same extractor on the same device, M at least 2.

        Raises:
            InputError: fewer than 2 images.
        """
        for features in (real, fake):
            if len(features) < 2:
                raise InputError(
                    f"FID: {len(features)} image has no covariance; score at least 2 images (sample.n, fid.reference)"
                )
        real, self._fake = real.double(), fake.double()
        self._mean = real.mean(0)
        centred = (real - self._mean) / (len(real) - 1) ** 0.5
        self._trace = centred.square().sum()
        self._rooted = self._fake @ _root(centred)

    def __call__(self, rows: Tensor | slice = slice(None)) -> float:
        """Distance of all generated images, or of those in some rows, to the real ones."""
        fake, rooted = self._fake[rows], self._rooted[rows]
        mean = fake.mean(0)
        trace = (fake - mean).square().sum() / (len(fake) - 1)
        rooted = (rooted - rooted.mean(0)) / (len(fake) - 1) ** 0.5
        gram = rooted @ rooted.T if len(rooted) < rooted.shape[1] else rooted.T @ rooted
        trace_root = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
        distance = (self._mean - mean).square().sum() + self._trace + trace - 2 * trace_root
        return max(0.0, float(distance))


def _root(centred: Tensor) -> Tensor:
    """R (D, ≤ D) with R Rᵀ = Aᵀ A, for A (N, D)."""
    if len(centred) < centred.shape[1]:
        _, deviations, axes = torch.linalg.svd(centred, full_matrices=False)
        return axes.T * deviations
    variances, axes = torch.linalg.eigh(centred.T @ centred)
    return axes * variances.clamp(min=0).sqrt()  # rounding makes zero variances slightly negative


def fid(real: Tensor, fake: Tensor) -> float:
    """Compute the Fréchet Inception distance (Heusel et al. 2017); it is biased upwards when there are few images.

    Args:
        real: (N, D) features.
        fake: (M, D) features of the same extractor.
    """
    return FrechetDistance(real, fake)()


def squared_mmd(real: Tensor, fake: Tensor) -> float:
    """Estimate the squared maximum mean discrepancy with the kernel (x·y / D + 1)³, without bias.

    Bińkowski et al. 2018, eq. 4 and section 3.1. Being unbiased, it is as often negative as positive where the two
    distributions are the same.

    Args:
        real: (N, D), N at least 2.
        fake: (M, D), M at least 2.
    """
    real, fake = real.double(), fake.double()
    within = _mean_off_diagonal(_kernel(real, real)) + _mean_off_diagonal(_kernel(fake, fake))
    return float(within - 2 * _kernel(real, fake).mean())


def kid_blocks(real: Tensor, fake: Tensor) -> np.ndarray:
    """Estimate the kernel Inception distance (Bińkowski et al. 2018) from disjoint blocks of the images.

    Both sets are shuffled, always alike, and cut into disjoint blocks of 2 to 1000 images: 10, or as many more as that
    takes, but fewer where the smaller set has less than 20. The blocks' estimates are independent, so their spread says
    how uncertain their mean, the KID, is. (Overlapping random subsets, the usual choice, have the same mean but a
    spread that shrinks to zero with fewer than 1000 images.) Where one set is about 500 times as large as the other, or
    more, there are not enough blocks to hold all of it, and the rest is left out.

    Args:
        real: (N, D) features.
        fake: (M, D) features of the same extractor on the same device.

    Returns:
        An estimate per block, float64, at least 2.

    Raises:
        InputError: fewer than 4 images.
    """
    count = min(len(real), len(fake))
    if count < MIN_IMAGES:
        raise InputError(
            f"KID: {count} images are too few for a standard error; score at least 4 images (sample.n, fid.reference)"
        )
    blocks = max(KID_BLOCKS, -(-max(len(real), len(fake)) // KID_BLOCK_SIZE))
    blocks = min(blocks, count // 2)
    rng = np.random.default_rng(0)
    parts = zip(
        np.array_split(rng.permutation(len(real)), blocks),
        np.array_split(rng.permutation(len(fake)), blocks),
        strict=True,
    )
    return np.array(
        [squared_mmd(real[rows[:KID_BLOCK_SIZE]], fake[columns[:KID_BLOCK_SIZE]]) for rows, columns in parts]
    )


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_off_diagonal(matrix: Tensor) -> Tensor:
    count = len(matrix)
    return (matrix.sum() - matrix.trace()) / (count * (count - 1))
