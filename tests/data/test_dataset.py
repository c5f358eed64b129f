import numpy as np
import pandas as pd
import pytest

from ddpm.data.dataset import PackedImages, load_packed, split_holdout
from ddpm.runtime.errors import InputError


@pytest.fixture
def packed() -> PackedImages:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    items = pd.DataFrame({"id": ["001", "NA", "c d", "é", "e,f"], "label": [0, 0, 1, 1, 1], "width": 9, "height": 8})
    summary = {"source": "folder", "image_size": 8, "count": 5, "class_names": ["a", "b"], "class_counts": [2, 3]}
    return PackedImages(images, items, summary)


def test_round_trip_keeps_everything_and_its_bytes(tmp_path, packed):
    packed.save(tmp_path / "a")
    loaded = load_packed(tmp_path / "a")
    assert np.array_equal(loaded.images, packed.images)
    pd.testing.assert_frame_equal(loaded.items, packed.items)
    assert loaded.summary == packed.summary
    loaded.save(tmp_path / "b")
    for name in ("images.npy", "items.csv", "summary.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_missing_and_misfitting_files_are_refused(tmp_path, packed):
    with pytest.raises(InputError, match="dvc repro preprocess"):
        load_packed(tmp_path)
    packed.save(tmp_path)
    np.save(tmp_path / "images.npy", packed.images[:3])
    with pytest.raises(InputError, match="do not fit 5 rows"):
        load_packed(tmp_path)


@pytest.mark.parametrize(("holdout", "expected"), [(0.0, 0), (0.001, 1), (0.1, 100), (0.5, 500)])
def test_holdout_has_the_size_asked_for_and_overlaps_nothing(holdout, expected):
    train, heldout = split_holdout([f"image_{i}" for i in range(1000)], holdout)
    assert len(heldout) == expected
    assert sorted([*train, *heldout]) == list(range(1000))


def test_holdout_hardly_moves_when_images_are_added_and_not_with_their_order():
    ids = [f"image_{i}" for i in range(1000)]
    before = {ids[row] for row in split_holdout(ids, 0.1)[1]}
    grown = [*(f"new_{i}" for i in range(20)), *reversed(ids)]
    after = {grown[row] for row in split_holdout(grown, 0.1)[1]}
    assert len(before & after) >= 95
