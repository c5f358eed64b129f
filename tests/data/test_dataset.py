import hashlib

import numpy as np
import pandas as pd
import pytest

from ddpm.data.dataset import PackedImages, find_copies, load_packed, split_holdout
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


IDS = [f"image_{i}" for i in range(1000)]


def sides(copies, holdout=0.1):
    """The held-out ids with and without regard to copies."""
    return ({IDS[row] for row in split_holdout(IDS, holdout, given)[1]} for given in ((), copies))


def test_copies_are_on_one_side_and_nothing_else_moves():
    rng = np.random.default_rng(0)
    copies = [[IDS[row] for row in group] for group in rng.permutation(300).reshape(100, 3)]
    before, after = sides(copies)
    assert all(len(set(group) & after) in (0, 3) for group in copies)
    copied = {name for group in copies for name in group}
    assert before - copied == after - copied and before != after
    assert abs(len(after) - 100) < 30
    train, heldout = split_holdout(IDS, 0.1, copies)
    assert sorted([*train, *heldout]) == list(range(1000))


def test_copies_on_one_side_already_change_nothing():
    before, _ = sides(())
    kept = sorted(before)[:2]
    trained = sorted(set(IDS) - before)[:2]
    before, after = sides([kept, trained])
    assert before == after


def test_some_image_is_held_out_even_if_it_is_a_copy():
    ids = ["a", "b", "c", "d"]
    (row,) = split_holdout(ids, 0.1)[1]
    other = ids[0] if row else ids[1]
    train, heldout = split_holdout(ids, 0.1, [[ids[row], other]])
    assert len(heldout) > 0 and len(train) > 0
    assert {ids[row], other} <= {ids[r] for r in heldout} or not {ids[row], other} & {ids[r] for r in heldout}
    assert len(split_holdout(ids, 0.0, [ids])[1]) == 0


def test_packed_images_keep_their_copies_on_one_side(packed):
    """The summary of the packed images is where `preprocess` leaves them for training and scores."""
    train, heldout = packed.split(0.2)
    packed.summary["copies"] = [[packed.items["id"][row] for row in (heldout[0], train[0])]]
    again = packed.split(0.2)
    assert any({heldout[0], train[0]} <= set(side.tolist()) for side in again)


def test_copies_are_found_by_their_pixels():
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    images[4], images[3], images[5] = images[1], images[0], images[1]
    assert find_copies(images, list("abcdef")) == [["a", "d"], ["b", "e", "f"]]
    images[5, 0, 0, 0] ^= 1
    assert find_copies(images, list("abcdef")) == [["a", "d"], ["b", "e"]]


def test_which_images_are_held_out_says_the_hash_of_their_ids_alone():
    """Not their order, nor their names: a folder in which kinds follow one another would lose the first kinds."""
    by_hash = sorted(IDS, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    for ids in (IDS, IDS[::-1]):
        assert {ids[row] for row in split_holdout(ids, 0.1)[1]} == set(by_hash[:100])


def test_all_copies_go_where_the_first_id_in_the_alphabet_goes():
    before = set(split_holdout(IDS, 0.5)[1].tolist())
    for one in range(0, 200, 2):
        pair = [IDS[one], IDS[one + 1]]
        for group in (pair, pair[::-1]):
            after = set(split_holdout(IDS, 0.5, [group])[1].tolist())
            assert (one in after) == (one + 1 in after) == (IDS.index(min(pair)) in before)
