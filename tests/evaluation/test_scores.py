import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance

from ddpm.evaluation import scores
from ddpm.evaluation.intervals import standard_error
from ddpm.evaluation.scores import FrechetDistance, fid, kid_blocks, squared_mmd
from ddpm.runtime.errors import InputError


def normal(seed, count, dims, shift=0.0):
    features = np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32)
    return torch.from_numpy(features + np.float32(shift))


def correlated(seed, count, dims):
    mixing = np.random.default_rng(seed + 1000).standard_normal((dims, dims)) / np.sqrt(dims)
    return normal(seed, count, dims) @ torch.from_numpy(mixing.astype(np.float32)) + 0.1 * seed


def covariance(seed, dims):
    return np.cov(correlated(seed, 3 * dims, dims).numpy(), rowvar=False, dtype=np.float64)


def with_moments(mean, cov, seed=0):
    """Features whose mean and unbiased covariance are exactly these."""
    mean, cov = np.atleast_1d(mean), np.atleast_2d(cov)
    raw = np.random.default_rng(seed).standard_normal((3 * len(mean) + 2, len(mean)))
    raw -= raw.mean(axis=0)
    whitened = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False).reshape(cov.shape))).T
    return torch.from_numpy(whitened @ np.linalg.cholesky(cov).T + mean)


def frechet(mean1, cov1, mean2, cov2):
    return fid(with_moments(mean1, cov1), with_moments(mean2, cov2, seed=1))


def kid(real, fake):
    blocks = kid_blocks(real, fake)
    return blocks.mean(), standard_error(blocks)


def test_features_are_left_as_they_are():
    features = normal(0, 10, 3).double()
    before = features.clone()
    fid(features, features)
    assert torch.equal(features, before)


@pytest.mark.parametrize("count", [0, 1])
def test_fid_of_one_image_is_refused(count):
    with pytest.raises(InputError, match="at least 2 images"):
        fid(normal(0, 5, 3), normal(0, count, 3))


def test_frechet_distance_in_one_dimension():
    # (m1 - m2)² + (s1 - s2)²
    assert frechet(1.0, 4.0, -2.0, 25.0) == pytest.approx(9 + 9)


def test_frechet_distance_of_diagonal_gaussians():
    rng = np.random.default_rng(0)
    (mean1, mean2), (std1, std2) = rng.standard_normal((2, 40)), rng.uniform(0.1, 3, (2, 40))
    expected = np.sum((mean1 - mean2) ** 2) + np.sum((std1 - std2) ** 2)
    assert frechet(mean1, np.diag(std1**2), mean2, np.diag(std2**2)) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_2x2_covariances_that_do_not_commute():
    cov1, cov2 = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.0, -0.4], [-0.4, 3.0]])
    product = cov1 @ cov2
    trace_root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))  # true of every 2x2 matrix
    expected = np.trace(cov1) + np.trace(cov2) - 2 * trace_root
    assert frechet(np.zeros(2), cov1, np.zeros(2), cov2) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_a_shift_is_its_squared_length():
    cov = covariance(0, 20)
    shift = np.linspace(-1, 1, 20)
    assert frechet(shift, cov, 2 * shift, cov) == pytest.approx(np.sum(shift**2), rel=1e-8)


def test_frechet_distance_is_symmetric_and_does_not_depend_on_the_axes():
    real, fake = correlated(0, 90, 30).double(), correlated(1, 90, 30).double()
    distance = fid(real, fake)
    assert fid(fake, real) == pytest.approx(distance, rel=1e-10)
    turn = torch.from_numpy(np.linalg.qr(np.random.default_rng(2).standard_normal((30, 30)))[0])
    assert fid(real @ turn, fake @ turn) == pytest.approx(distance, rel=1e-10)


@pytest.mark.parametrize("count", [5, 200])
def test_the_distance_of_some_rows_is_that_of_a_set_of_these_rows(count):
    real, fake = correlated(0, 300, 40), correlated(1, 300, 40)
    rows = torch.randperm(300)[:count]
    # The roots of eigenvalues that are zero but for rounding leave 1e-8, which differs between BLAS libraries.
    assert FrechetDistance(real, fake)(rows) == pytest.approx(fid(real, fake[rows]), rel=1e-8)


def test_fid_agrees_with_pytorch_fid():
    real, fake = correlated(0, 500, 64), correlated(1, 400, 64)
    moments = [part for x in (real.numpy(), fake.numpy()) for part in (x.mean(axis=0), np.cov(x, rowvar=False))]
    theirs = calculate_frechet_distance(*moments)
    assert fid(real, fake) == pytest.approx(theirs, rel=1e-6)


def test_fid_with_fewer_images_than_features():
    sets = correlated(0, 20, 96), correlated(1, 15, 96)
    real, fake = (features.numpy().astype(np.float64) for features in sets)
    # With C1 = AᵀA and C2 = BᵀB the trace of the root is the sum of the singular values of ABᵀ, a 20x15 matrix.
    centred = (real - real.mean(axis=0)) / np.sqrt(19), (fake - fake.mean(axis=0)) / np.sqrt(14)
    trace_root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    shift = np.sum((real.mean(axis=0) - fake.mean(axis=0)) ** 2)
    expected = shift + sum(np.sum(part**2) for part in centred) - 2 * trace_root
    assert fid(*sets) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [2, 10, 300])
def test_fid_of_a_set_with_itself_is_zero(count):
    features = correlated(3, count, 50)
    assert 0 <= fid(features, features) < 1e-5


def test_fid_of_constant_features_is_finite():
    assert fid(torch.ones(5, 8), torch.zeros(4, 8)) == pytest.approx(8)


def brute_force_mmd(x, y):
    def kernel(a, b):
        return (float(np.dot(a, b)) / len(a) + 1) ** 3

    within_x = [kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
    within_y = [kernel(y[i], y[j]) for i in range(len(y)) for j in range(len(y)) if i != j]
    return np.mean(within_x) + np.mean(within_y) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_squared_mmd_is_the_formula():
    real, fake = normal(0, 7, 5).double(), normal(1, 9, 5, shift=0.5).double()
    assert squared_mmd(real, fake) == pytest.approx(brute_force_mmd(real.numpy(), fake.numpy()), rel=1e-10)


def test_squared_mmd_is_unbiased():
    # Two points, drawn with probabilities ½, ½ and ¼, ¾: the expectation is a finite sum.
    rng = np.random.default_rng(0)
    points = np.array([[1.0, -1.0, 0.5], [0.2, 2.0, -1.0]])
    kernel = (points @ points.T / 3 + 1) ** 3
    difference = np.array([0.5, 0.5]) - np.array([0.25, 0.75])
    expected = difference @ kernel @ difference
    draws = [
        squared_mmd(
            *(torch.from_numpy(points[rng.choice(2, 6 - i, p=p)]) for i, p in enumerate(([0.5, 0.5], [0.25, 0.75])))
        )
        for _ in range(4000)
    ]
    assert abs(np.mean(draws) - expected) < 4 * np.std(draws) / np.sqrt(len(draws))


def test_kid_is_zero_on_average_for_one_distribution_and_its_standard_error_is_right():
    draws = np.array([kid(normal(2 * i, 60, 6), normal(2 * i + 1, 80, 6)) for i in range(300)])
    spread = draws[:, 0].std()
    assert abs(draws[:, 0].mean()) < 4 * spread / np.sqrt(len(draws))
    assert draws[:, 1].mean() == pytest.approx(spread, rel=0.2)


def test_kid_of_a_shift_is_positive_by_many_standard_errors():
    mean, error = kid(normal(0, 300, 16), normal(1, 200, 16, shift=0.5))
    assert mean > 5 * error > 0


def test_kid_grows_with_the_shift():
    real = normal(0, 200, 16)
    means = [kid(real, normal(1, 200, 16, shift=shift))[0] for shift in (0.0, 0.2, 0.4, 0.8)]
    assert means == sorted(means)


def test_kid_of_the_same_input_is_the_same_number():
    real, fake = normal(0, 53, 4), normal(1, 41, 4)
    assert kid(real, fake) == kid(real, fake)


def test_kid_does_not_care_for_a_common_order_of_the_images():
    # Real images come sorted by class; blocks of neighbours would compare single classes.
    rows = normal(0, 400, 4)
    ordered = rows[rows[:, 0].argsort()]
    mean, error = kid(ordered, ordered.flip(0))
    assert abs(mean) < 4 * error


@pytest.mark.parametrize("count", [4, 5, 19, 2500])
def test_kid_has_an_error_at_every_size(count):
    mean, error = kid(normal(0, count, 3), normal(1, count + 1, 3))
    assert np.isfinite(mean) and error > 0


def test_kid_of_three_images_is_refused():
    with pytest.raises(InputError, match="at least 4 images"):
        kid(normal(0, 3, 4), normal(1, 100, 4))


@pytest.mark.parametrize(("real", "fake"), [(9000, 8), (8, 9000), (12_500, 30), (1500, 1400)])
def test_kid_never_compares_more_than_1000_images_at_once(real, fake, monkeypatch):
    sizes = []

    def recorded(x, y):
        sizes.append((len(x), len(y)))
        return squared_mmd(x, y)

    monkeypatch.setattr(scores, "squared_mmd", recorded)
    mean, error = kid(normal(0, real, 2), normal(1, fake, 2))
    assert max(map(max, sizes)) <= 1000 and min(map(min, sizes)) >= 2
    assert len(sizes) == min(max(10, -(-max(real, fake) // 1000)), min(real, fake) // 2)
    assert np.isfinite(mean) and error > 0


def test_the_squared_mmd_of_float32_features_is_calculated_in_float64():
    real, fake = normal(0, 50, 16, shift=30), normal(1, 40, 16, shift=30)
    assert squared_mmd(real, fake) == squared_mmd(real.double(), fake.double())
