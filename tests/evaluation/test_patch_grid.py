"""The measure of a grid: which images have one, which have none, and which direction or size it has."""

import numpy as np
import pytest

from ddpm.evaluation.patch_grid import beside_real_images, patch_grid

PATCHES = pytest.mark.parametrize("patch", [2, 4])


def noise(count: int, side: int, exponent: float, seed: int = 0) -> np.ndarray:
    """Images whose amplitudes fall as 1 / f^exponent: 1 for photographs (Field 1987), 0 for white noise."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = 1 / side
    spectrum = np.fft.fft2(rng.standard_normal((count, side, side, 3)), axes=(1, 2))
    images = np.fft.ifft2(spectrum / frequency[..., None] ** exponent, axes=(1, 2)).real
    images = 128 + 40 * images / images.std(axis=(1, 2), keepdims=True)
    return images.round().clip(0, 255).astype(np.uint8)


def with_grid(images: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """Add a pattern, (p, p) in levels, to every square of p × p pixels."""
    height, width = (side // len(pattern) for side in images.shape[1:3])
    return (images.astype(int) + np.tile(pattern, (height, width))[..., None]).clip(0, 255).astype(np.uint8)


@PATCHES
@pytest.mark.parametrize(("exponent", "low", "high"), [(0, 0.9, 1.1), (1, 0.85, 1.1), (1.5, 0.8, 1.1)])
def test_noise_like_that_of_photographs_has_no_grid(patch, exponent, low, high):
    assert low < patch_grid(noise(200, 64, exponent), patch) < high


@PATCHES
@pytest.mark.parametrize("lines", ["horizontal", "vertical", "both", "checkerboard"])
def test_a_grid_of_any_direction_has_many_times_that(patch, lines):
    y, x = np.mgrid[:patch, :patch]
    squares = (2 * y // patch + 2 * x // patch) % 2
    light = {"horizontal": y == 0, "vertical": x == 0, "both": (y == 0) | (x == 0), "checkerboard": squares}
    smooth = noise(50, 64, 1)
    assert patch_grid(with_grid(smooth, 6 * patch * light[lines]), patch) > 10 * patch_grid(smooth, patch)


@PATCHES
def test_it_grows_with_the_square_of_the_contrast(patch):
    smooth, pattern = noise(50, 64, 1), np.indices((patch, patch)).min(axis=0) == 0
    first, second = (patch_grid(with_grid(smooth, levels * pattern), patch) for levels in (8, 16))
    assert second / first == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize(("patch", "other"), [(2, 4), (4, 2)])
def test_a_grid_of_another_size_is_not_taken_for_it(patch, other):
    """A wave of 1/p cycles per pixel, without harmonics."""
    smooth, place = noise(50, 64, 1), np.arange(other)
    wave = (10 * np.cos(2 * np.pi * place / other)).round().astype(int)
    images = with_grid(smooth, wave[:, None] + wave[None])
    assert patch_grid(images, other) > 10
    assert patch_grid(images, patch) < 1.5


def test_a_grid_of_single_images_does_not_cancel_out_over_several():
    smooth, pattern = noise(2, 64, 1), 16 * (np.indices((2, 2)).sum(axis=0) % 2)
    images = np.concatenate([with_grid(smooth[:1], pattern), with_grid(smooth[1:], 16 - pattern)])
    assert patch_grid(images, 2) > 5


def test_images_that_are_not_square_and_images_turned_by_90_degrees():
    images = with_grid(noise(20, 64, 1), 20 * (np.arange(4) == 0)[:, None] * np.ones((1, 4), dtype=int))[:, :, :32]
    found = patch_grid(images, 4)
    assert found > 10
    assert patch_grid(images.transpose(0, 2, 1, 3), 4) == pytest.approx(found)


@pytest.mark.parametrize(
    ("height", "width", "patch", "least"), [(30, 32, 4, 16), (32, 30, 4, 16), (8, 64, 4, 16), (64, 6, 2, 8)]
)
def test_images_without_whole_patches_or_with_too_few_are_refused(height, width, patch, least):
    sentence = f"^images: found {height} × {width} pixels; choose multiples of {patch}, at least {least}$"
    with pytest.raises(ValueError, match=sentence):
        patch_grid(np.zeros((1, height, width, 3), dtype=np.uint8), patch)


def test_samples_are_measured_beside_real_images():
    real, pattern = noise(40, 64, 1), 16 * (np.indices((2, 2)).sum(axis=0) % 2)
    found = beside_real_images(with_grid(real, pattern), real, 2)
    assert found["samples"] > 5 * found["real"] and 0.8 < found["real"] < 1.2


def test_of_many_images_some_from_all_over_are_measured(monkeypatch):
    monkeypatch.setattr("ddpm.evaluation.patch_grid.ENOUGH", 4)
    real, pattern = noise(10, 64, 1), 60 * (np.indices((2, 2)).sum(axis=0) % 2)
    samples = np.concatenate([real[:5], with_grid(real[5:], pattern)])  # rows 0, 3, 6 and 9
    found = beside_real_images(samples, real, 2)
    assert found == {"samples": patch_grid(samples[::3], 2), "real": patch_grid(real[::3], 2)}


@pytest.mark.parametrize(("patch", "side", "light"), [(1, 64, 1), (4, 8, 1), (2, 64, 0)])
def test_without_patches_or_with_nothing_to_see_there_is_no_measure(patch, side, light):
    images = noise(4, side, 1)
    assert beside_real_images(light * images, images, patch) is None


def test_four_squares_in_a_row_are_the_fewest_that_are_measured():
    found = [beside_real_images(noise(4, side, 1), noise(4, side, 1), 4) for side in (12, 16)]
    assert found[0] is None and found[1] is not None
