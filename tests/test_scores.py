import numpy as np
import pytest
from pytorch_fid.fid_score import calculate_frechet_distance

from ddpm import scores
from ddpm.errors import InputError
from ddpm.scores import fid, frechet_distance, kid, moments, squared_mmd


def normal(seed, count, dims, shift=0.0):
    return np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32) + np.float32(shift)


def correlated(seed, count, dims):
    mixing = np.random.default_rng(seed + 1000).standard_normal((dims, dims)) / np.sqrt(dims)
    return normal(seed, count, dims) @ mixing + 0.1 * seed


def covariance(seed, dims):
    return moments(correlated(seed, 3 * dims, dims))[1]


def test_moments_are_mean_and_unbiased_covariance_in_float64():
    features = normal(0, 30, 5)
    mean, cov = moments(features)
    assert mean.dtype == cov.dtype == np.float64
    np.testing.assert_allclose(mean, features.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(features, rowvar=False, dtype=np.float64), rtol=1e-10)


def test_moments_leave_the_features_as_they_are():
    features = normal(0, 10, 3).astype(np.float64)
    before = features.copy()
    moments(features)
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize("count", [0, 1])
def test_moments_of_one_image_are_refused(count):
    with pytest.raises(InputError, match="at least 2 images"):
        moments(normal(0, count, 3))


def test_frechet_distance_in_one_dimension():
    # (m1 - m2)² + (s1 - s2)²
    distance = frechet_distance(np.array([1.0]), np.array([[4.0]]), np.array([-2.0]), np.array([[25.0]]))
    assert distance == pytest.approx(9 + 9)


def test_frechet_distance_of_diagonal_gaussians():
    rng = np.random.default_rng(0)
    (mean1, mean2), (std1, std2) = rng.standard_normal((2, 40)), rng.uniform(0.1, 3, (2, 40))
    expected = np.sum((mean1 - mean2) ** 2) + np.sum((std1 - std2) ** 2)
    assert frechet_distance(mean1, np.diag(std1**2), mean2, np.diag(std2**2)) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_2x2_covariances_that_do_not_commute():
    cov1, cov2 = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.0, -0.4], [-0.4, 3.0]])
    product = cov1 @ cov2
    trace_root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))  # true of every 2x2 matrix
    expected = np.trace(cov1) + np.trace(cov2) - 2 * trace_root
    assert frechet_distance(np.zeros(2), cov1, np.zeros(2), cov2) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_a_shift_is_its_squared_length():
    cov = covariance(0, 20)
    shift = np.linspace(-1, 1, 20)
    assert frechet_distance(shift, cov, 2 * shift, cov) == pytest.approx(np.sum(shift**2), rel=1e-10)


def test_frechet_distance_is_symmetric_and_does_not_depend_on_the_axes():
    (mean1, cov1), (mean2, cov2) = moments(correlated(0, 90, 30)), moments(correlated(1, 90, 30))
    distance = frechet_distance(mean1, cov1, mean2, cov2)
    assert frechet_distance(mean2, cov2, mean1, cov1) == pytest.approx(distance, rel=1e-10)
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((30, 30)))[0]
    turned = frechet_distance(turn @ mean1, turn @ cov1 @ turn.T, turn @ mean2, turn @ cov2 @ turn.T)
    assert turned == pytest.approx(distance, rel=1e-10)


def test_fid_agrees_with_pytorch_fid():
    real, fake = correlated(0, 500, 64), correlated(1, 400, 64)
    theirs = calculate_frechet_distance(
        real.mean(axis=0), np.cov(real, rowvar=False), fake.mean(axis=0), np.cov(fake, rowvar=False)
    )
    assert fid(real, fake) == pytest.approx(theirs, rel=1e-6)


def test_fid_with_fewer_images_than_features():
    real, fake = correlated(0, 20, 96), correlated(1, 15, 96)
    # With C1 = AᵀA and C2 = BᵀB the trace of the root is the sum of the singular values of ABᵀ, a 20x15 matrix.
    centred = (real - real.mean(axis=0)) / np.sqrt(19), (fake - fake.mean(axis=0)) / np.sqrt(14)
    trace_root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    shift = np.sum((real.mean(axis=0) - fake.mean(axis=0)) ** 2)
    expected = shift + sum(np.sum(part**2) for part in centred) - 2 * trace_root
    assert fid(real, fake) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [2, 10, 300])
def test_fid_of_a_set_with_itself_is_zero(count):
    features = correlated(3, count, 50)
    assert 0 <= fid(features, features) < 1e-5


def test_fid_of_constant_features_is_finite():
    assert fid(np.ones((5, 8), np.float32), np.zeros((4, 8), np.float32)) == pytest.approx(8)


def brute_force_mmd(x, y):
    def kernel(a, b):
        return (float(np.dot(a, b)) / len(a) + 1) ** 3

    within_x = [kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
    within_y = [kernel(y[i], y[j]) for i in range(len(y)) for j in range(len(y)) if i != j]
    return np.mean(within_x) + np.mean(within_y) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_squared_mmd_is_the_formula():
    real, fake = normal(0, 7, 5).astype(np.float64), normal(1, 9, 5, shift=0.5).astype(np.float64)
    assert squared_mmd(real, fake) == pytest.approx(brute_force_mmd(real, fake), rel=1e-10)


def test_squared_mmd_is_unbiased():
    # Two points, drawn with probabilities ½, ½ and ¼, ¾: the expectation is a finite sum.
    rng = np.random.default_rng(0)
    points = np.array([[1.0, -1.0, 0.5], [0.2, 2.0, -1.0]])
    kernel = (points @ points.T / 3 + 1) ** 3
    difference = np.array([0.5, 0.5]) - np.array([0.25, 0.75])
    expected = difference @ kernel @ difference
    draws = [
        squared_mmd(points[rng.choice(2, 6)], points[rng.choice(2, 5, p=[0.25, 0.75])])  #
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
    ordered = rows[np.argsort(rows[:, 0])]
    mean, error = kid(ordered, ordered[::-1])
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
