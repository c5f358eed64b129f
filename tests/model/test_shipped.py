"""The small model of this repository."""

import numpy as np
import pytest

from ddpm import load_model
from tests.support import ROOT

SHIPPED = ROOT / "shipped"


@pytest.fixture(scope="module")
def model():
    return load_model(SHIPPED, device="cpu")


def test_it_is_small_and_has_its_card():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 12e6
    card = (SHIPPED / "README.md").read_text()
    assert "Flowers-102" in card and "| FID" in card and "Not scored" not in card


def test_it_generates_pictures_and_no_noise(model):
    """Neighbouring pixels of noise differ by a third of the range of brightness, those of photographs by little."""
    images = model.sample(8, steps=20, seed=1).astype(float)
    assert np.abs(np.diff(images, axis=1)).mean() < 30 and np.abs(np.diff(images, axis=2)).mean() < 30
    assert images.std(axis=0).mean() > 20  # and they are not all the same


def test_it_knows_flowers_by_their_names(model):
    yellow, blue = (model.sample(8, label=label, seed=0).astype(float) for label in ("sunflower", "grape hyacinth"))
    warmth = [(images[..., 0] - images[..., 2]).mean() for images in (yellow, blue)]
    assert warmth[0] > warmth[1] + 30
