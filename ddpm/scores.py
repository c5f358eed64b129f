"""Distances between two sets of features: FID and KID, in float64."""

import numpy as np

from ddpm.errors import InputError

KID_BLOCKS = 10
KID_BLOCK_SIZE = 1000  # the subset size of Bińkowski et al. 2018


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and unbiased covariance.

    Args:
        features: (N, D), N at least 2.

    Returns:
        mean (D,) and covariance (D, D), float64.

    Raises:
        InputError: fewer than 2 images.
    """
    if len(features) < 2:
        raise InputError(f"FID: {len(features)} image has no covariance; score at least 2 images (sample.n)")
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    features -= mean
    return mean, features.T @ features / (len(features) - 1)


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Compute the squared Fréchet distance of two Gaussians: |m1 - m2|² + Tr(C1 + C2 - 2 (C1 C2)^½).

    Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6. The trace of the root is the sum of the roots of the
    eigenvalues of Lᵀ C2 L with C1 = L Lᵀ. That matrix is symmetric and has the eigenvalues of C1 C2, so the result is
    real and stable where the matrix root of C1 C2 is not: with fewer images than features, C1 and C2 are singular.

    Args:
        mean1: (D,).
        cov1: (D, D), symmetric and positive semi-definite.
        mean2: (D,).
        cov2: (D, D), symmetric and positive semi-definite.
    """
    variances, axes = np.linalg.eigh(cov1)
    root = axes * np.sqrt(np.maximum(variances, 0))  # rounding makes zero variances slightly negative
    trace_root = np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ cov2 @ root), 0)).sum()
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * trace_root
    return max(0.0, float(distance))


def fid(real: np.ndarray, fake: np.ndarray) -> float:
    """Compute the Fréchet Inception distance (Heusel et al. 2017); it is biased upwards when there are few images.

    Args:
        real: (N, D) features.
        fake: (M, D) features of the same extractor.
    """
    return frechet_distance(*moments(real), *moments(fake))


def squared_mmd(real: np.ndarray, fake: np.ndarray) -> float:
    """Estimate the squared maximum mean discrepancy with the kernel (x·y / D + 1)³, without bias.

    Bińkowski et al. 2018, eq. 4 and section 3.1. Being unbiased, it is as often negative as positive where the two
    distributions are the same.

    Args:
        real: (N, D), N at least 2.
        fake: (M, D), M at least 2.
    """
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    return (
        _mean_off_diagonal(_kernel(real, real))
        + _mean_off_diagonal(_kernel(fake, fake))
        - 2 * float(_kernel(real, fake).mean())
    )


def kid(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """Compute the kernel Inception distance (Bińkowski et al. 2018) and its standard error.

    Both sets are shuffled, always alike, and cut into disjoint blocks of 2 to 1000 images: 10, or as many more as that
    takes, but fewer where the smaller set has less than 20. The blocks' estimates are independent, so their spread says
    how uncertain the mean is. (Overlapping random subsets, the usual choice, have the same mean but a spread that
    shrinks to zero with fewer than 1000 images.) Where one set is about 500 times as large as the other, or more, there
    are not enough blocks to hold all of it, and the rest is left out.

    Args:
        real: (N, D) features.
        fake: (M, D) features of the same extractor.

    Raises:
        InputError: fewer than 4 images.
    """
    count = min(len(real), len(fake))
    if count < 4:
        raise InputError(f"KID: {count} images are too few for a standard error; score at least 4 images (sample.n)")
    blocks = max(KID_BLOCKS, -(-max(len(real), len(fake)) // KID_BLOCK_SIZE))
    blocks = min(blocks, count // 2)
    rng = np.random.default_rng(0)
    parts = zip(
        np.array_split(rng.permutation(len(real)), blocks),
        np.array_split(rng.permutation(len(fake)), blocks),
        strict=True,
    )
    estimates = np.array(
        [squared_mmd(real[rows[:KID_BLOCK_SIZE]], fake[columns[:KID_BLOCK_SIZE]]) for rows, columns in parts]
    )
    return float(estimates.mean()), float(estimates.std(ddof=1) / np.sqrt(blocks))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_off_diagonal(matrix: np.ndarray) -> float:
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))
