"""Each set of images goes where its name says, and each interval has its level and its count."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from ddpm.config import parse_config
from ddpm.data.dataset import PackedImages
from ddpm.evaluation import intervals, protocol, quick_scores, results
from ddpm.evaluation.features import InceptionFeatures
from ddpm.evaluation.memorisation import Memorisation
from ddpm.evaluation.scores import FrechetDistance, kid_blocks
from stages import fid, reference

CPU = torch.device("cpu")
COUNT, SAMPLES = 40, 12


@pytest.fixture
def packed() -> PackedImages:
    """Images that can be told apart: image k has the brightness k."""
    images = np.arange(COUNT, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    items = pd.DataFrame({"id": [f"{number:02}" for number in range(COUNT)], "label": 0})
    return PackedImages(images, items, {"class_names": ["one"]})


@pytest.fixture
def scored(params, packed, monkeypatch, tmp_path):
    """The stage fid, with features that say which image they are of; returns what the two scores were given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    features = np.arange(COUNT, dtype=np.float32)[:, None]
    fakes = 1000 + np.arange(SAMPLES, dtype=np.float32)[:, None]
    given = {}
    monkeypatch.setattr(fid, "stage_key", lambda *_: "a" * 64)
    monkeypatch.setattr(fid, "load_packed", lambda _folder: packed)
    monkeypatch.setattr(fid, "reference_features", lambda _config, name: features - 100 * (name == "mirrored"))
    monkeypatch.setattr(fid, "load_array", lambda *_: np.zeros((SAMPLES, 8, 8, 3), np.uint8))
    monkeypatch.setattr(fid, "features_of", lambda *_: fakes)
    monkeypatch.setattr(fid, "evaluate", lambda *sets: given.update(zip(("real", "fake"), sets, strict=True)))
    memorisation = fid.memorisation

    def watch(*sets):
        given.update(zip(("views", "heldout", "fakes", "shown"), sets, strict=True))
        return memorisation(*sets)

    monkeypatch.setattr(fid, "memorisation", watch)
    monkeypatch.setattr(fid, "save_neighbours", lambda *words: given.update(neighbours=words))
    monkeypatch.setattr(fid, "write", lambda _config, _evaluation, _copies, counts: given.update(counts))

    def scored(**changes):
        params["fid"] |= changes
        params["data"]["holdout"] = 0.25
        fid.main(parse_config(params))
        return {name: value[:, 0].tolist() if torch.is_tensor(value) else value for name, value in given.items()}

    return scored


def test_the_scores_are_against_the_images_that_the_parameter_names(scored, packed):
    train, heldout = (rows.tolist() for rows in packed.split(0.25))
    for name, rows in {"all": list(range(COUNT)), "train": train, "heldout": heldout}.items():
        given = scored(reference=name)
        assert given["real"] == rows and given["fake"] == [1000.0 + k for k in range(SAMPLES)]
        assert given["reference_images"] == len(rows) and given["samples"] == len(given["fake"]) == SAMPLES


def test_copies_are_looked_for_among_training_images_and_their_mirrors_alone(scored, packed):
    train, heldout = (rows.tolist() for rows in packed.split(0.25))
    for name in ("all", "heldout"):
        given = scored(reference=name)
        assert given["views"] == train + [row - 100 for row in train]
        assert given["heldout"] == heldout and given["fakes"] == given["fake"] and given["shown"] == fid.SHOWN
    samples, images, rows, neighbours, _path = given["neighbours"]
    assert len(samples) == fid.SHOWN and images is packed.images and rows.tolist() == train
    assert set(neighbours.tolist()) == {max(train)}  # of all training images the one nearest to 1000 and more


def test_each_score_is_written_under_its_own_name(config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder in ("reports/scores", "data/samples"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/samples/origin.json").write_text('{"model_sha256": "f00", "options": {"steps": 7}}')
    monkeypatch.setattr(results, "weights_record", lambda _extractor: {"sha256": "ba4"})
    number = itertools.count(1.0)
    scores = {name: {end: next(number) for end in ("value", "low", "high")} for name in protocol.SCORES}
    ends = ("model", "real", "real_low", "real_high")
    floor = {"images": 5, "scores": {name: {end: next(number) for end in ends} for name in protocol.SCORES}}
    copies = Memorisation(intervals.Interval(0.9, 0.8, 1.2), None, 3, np.arange(2), np.arange(2))
    counts = {"samples": 12, "reference_images": 40}
    results.write(config.fid, {"scores": scores, "halves": 50, "floor": floor}, copies, counts)
    (metrics,) = json.loads(Path("reports/fid.json").read_text()).values()
    fid_floor = floor["scores"]["fid"]
    assert metrics == {name: scores[name]["value"] for name in protocol.SCORES} | {
        "fid_low": scores["fid"]["low"], "fid_high": scores["fid"]["high"], "memorisation": 0.9,
        "fid_same_n": fid_floor["model"], "fid_floor": fid_floor["real"],
    }  # fmt: skip
    about = json.loads(Path("reports/scores/scores.json").read_text())
    memorisation = {"value": 0.9, "low": 0.8, "high": 1.2}
    assert about["scores"] == scores | {"memorisation": memorisation} and about["floor"] == floor
    assert about["duplicates"] == 3 and about["model_sha256"] == "f00" and about["sampling"] == {"steps": 7}
    assert (about["samples"], about["reference_images"], about["weights"]) == (12, 40, {"sha256": "ba4"})


def test_the_features_of_the_reference_are_those_of_the_images_and_of_their_mirrors(params, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    asked = []

    def extract(pictures, extractor, batch_size):
        asked.append((extractor, batch_size))
        return pictures[:, :, 0, 0].astype(np.float32)  # the left edge

    (tmp_path / "weights").write_bytes(b"weights")
    monkeypatch.setattr(reference, "load_packed", lambda _folder: PackedImages(images, pd.DataFrame(), {}))
    monkeypatch.setattr(reference, "weights_file", lambda _name: tmp_path / "weights")
    monkeypatch.setattr(reference, "load_extractor", lambda name, _file, device: (name, str(device)))
    monkeypatch.setattr(reference, "extract", extract)
    params["fid"] |= {"batch_size": 3, "extractor": "efficientnet_lite0"}
    params["device"] = "cpu"
    reference.main(parse_config(params))
    assert asked == [(("efficientnet_lite0", "cpu"), 3)] * 2
    assert np.array_equal(np.load("data/reference/features.npy"), images[:, :, 0, 0])
    assert np.array_equal(np.load("data/reference/mirrored.npy"), images[:, :, -1, 0])
    assert json.loads((tmp_path / "data/reference/reference.json").read_text())["n"] == 5


def test_the_features_of_the_samples_are_those_of_the_extractor_and_batch_that_are_named(config, monkeypatch):
    monkeypatch.setattr(results, "weights_file", lambda name: f"weights of {name}")
    monkeypatch.setattr(results, "load_extractor", lambda *words: words)
    monkeypatch.setattr(results, "extract", lambda *words: words)
    chosen = config.fid.model_copy(update={"extractor": "efficientnet_lite0", "batch_size": 7})
    network = ("efficientnet_lite0", "weights of efficientnet_lite0", CPU)
    assert results.features_of("samples", chosen, CPU) == ("samples", network, 7)


def test_quick_scores_see_training_images_alone(config, packed, monkeypatch):
    seen = []
    monkeypatch.setattr(quick_scores, "REAL_IMAGES", 10)
    monkeypatch.setattr(quick_scores, "weights_file", lambda *_: None)
    monkeypatch.setattr(quick_scores, "load_extractor", lambda *_: nn.Linear(1, 1))
    monkeypatch.setattr(
        quick_scores,
        "extract",
        lambda images, *_: seen.append(images[:, 0, 0, 0].tolist()) or images[:, 0, 0, :1].astype(np.float32),
    )
    rows = np.arange(20, 35)  # the others are held out
    quick_scores.QuickScores(config.fid, packed.images, rows, CPU, seed=0)
    (images,) = seen
    assert len(set(images)) == 10 and set(images) <= set(rows.tolist()) and images != list(range(20, 30))


def test_quick_scores_ask_for_the_samples_of_their_seed_and_score_them(config, packed, monkeypatch):
    monkeypatch.setattr(quick_scores, "weights_file", lambda *_: None)
    monkeypatch.setattr(quick_scores, "load_extractor", lambda *_: nn.Linear(1, 1))
    monkeypatch.setattr(quick_scores, "extract", lambda images, *_: images[:, 0, 0, :1].astype(np.float32))
    asked = {}

    class Model:
        diffusion = SimpleNamespace(timesteps=1000)

        def sample(self, n, **options):
            asked.update(options, n=n)
            return packed.images[10:20]

    scores = quick_scores.QuickScores(config.fid, packed.images, np.arange(COUNT), CPU, seed=7)(Model())
    assert (asked["n"], asked["seed"], asked["steps"], asked["sampler"]) == (500, 7, 20, "dpmpp_2m_sde")
    real, fake = (torch.arange(*ends, dtype=torch.float32)[:, None] for ends in ((0, COUNT), (10, 20)))
    assert scores["quick/fid"] == pytest.approx(FrechetDistance(real, fake)())
    assert scores["quick/kid"] == pytest.approx(kid_blocks(real, fake).mean())


# ---- intervals


def test_an_interval_of_halves_is_that_of_95_in_100():
    parts = np.array([9.0, 10.0, 11.0, 14.0])
    found, half = intervals.from_parts(20.0, parts), 1.959963984540054 * np.std(parts, ddof=1)
    assert (found.value, found.low, found.high) == pytest.approx((20.0, 20 - half, 20 + half))


def test_an_interval_of_blocks_is_students_at_95_in_100():
    blocks = np.array([1.0, 2.0, 4.0, 9.0])
    found, half = intervals.from_blocks(blocks), 3.182446305284263 * np.std(blocks, ddof=1) / 2
    assert (found.value, found.low, found.high) == pytest.approx((4.0, 4 - half, 4 + half))


def test_an_interval_of_a_fraction_is_wilsons_at_95_in_100():
    found, z = intervals.of_fraction(0.3, 50), 1.959963984540054
    middle, half = 0.3 + z**2 / 100, z * (0.3 * 0.7 / 50 + z**2 / 10000) ** 0.5
    scale = 1 + z**2 / 50
    assert (found.low, found.high) == pytest.approx(((middle - half) / scale, (middle + half) / scale))


def test_a_bootstrap_has_its_ends_at_2_5_and_97_5_in_100(monkeypatch):
    numbers = iter([*np.arange(1000.0).tolist(), 500.0])
    found = intervals.bootstrap(lambda _x, _y: next(numbers), np.arange(3.0), np.arange(3.0))
    assert (found.value, found.low, found.high) == pytest.approx((500.0, 24.975, 974.025))


def test_a_difference_is_told_at_95_in_100_of_the_family():
    x, y = [1.0, 2.0, 4.0], [5.0, 9.0, 7.0]
    found, welch = intervals.difference(x, y, 2), stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), rel=1e-4)


@pytest.fixture
def unequal():
    """Of real and generated images: other numbers of them, and neither set alike from its one end to its other."""
    torch.manual_seed(1)
    return torch.randn(60, 3), torch.randn(36, 3) * 0.8


def test_each_fraction_has_the_count_of_its_own_set(unequal, monkeypatch):
    """Precision is a fraction of the samples, recall and coverage are fractions of the real images."""
    counts = {}
    of_fraction, fraction = protocol.of_fraction, protocol._fraction
    monkeypatch.setattr(protocol, "of_fraction", lambda v, n: counts.setdefault("precision", n) and of_fraction(v, n))
    monkeypatch.setattr(
        protocol, "_fraction", lambda v, parts, n: counts.setdefault(len(parts), n) and fraction(v, parts, n)
    )
    protocol.evaluate(*unequal)
    assert counts == {"precision": 36, protocol.RECALL_HALVES: 60, protocol.HALVES: 60}


def test_halves_are_drawn_and_each_is_another(unequal):
    _, fake = unequal
    halves = [tuple(half.tolist()) for half in protocol._halves(fake, 30)]
    assert len({frozenset(half) for half in halves}) == 30 and {len(set(half)) for half in halves} == {18}
    assert set().union(*halves) == set(range(36))


def test_splits_of_the_floor_are_drawn_and_each_is_another(unequal, monkeypatch):
    """Each split's samples, real or generated, are chosen at random, and as many of the real ones are no reference."""
    real, fake = unequal
    seen = []

    def watch(reference, samples):
        seen.append(tuple(frozenset(map(np.ndarray.tobytes, x.features.numpy())) for x in (reference, samples)))
        return 0.5, 0.5

    monkeypatch.setattr(protocol, "precision_recall", watch)
    floor = protocol._floor(real, fake, lambda: None)
    assert floor is not None and (floor["images"], floor["reference_images"]) == (30, 30)
    of_real, of_fake = seen[::2], seen[1::2]
    assert len(seen) == len(set(seen)) == 2 * protocol.SPLITS
    everything = frozenset(row.tobytes() for row in real.numpy())
    for (others, players), (same, samples) in zip(of_real, of_fake, strict=True):
        assert others == same and not others & players and others | players == everything
        assert len(samples) == 30 and samples <= frozenset(row.tobytes() for row in fake.numpy())
    assert frozenset(row.tobytes() for row in fake[:30].numpy()) not in {samples for _, samples in of_fake}


def test_blocks_of_kid_are_a_draw_of_samples_and_of_real_images_alike():
    """Sorted, as images of classes are, the blocks of a set would differ by their class and not by luck."""
    values = torch.linspace(-1, 1, 200)[:, None]
    torch.manual_seed(0)
    mixed = values[torch.randperm(200)]
    for real, fake in ((mixed, values), (values, mixed)):
        assert kid_blocks(real, fake).std() < 3 * kid_blocks(mixed, mixed.flip(0)).std()


def test_scores_of_a_sorted_set_are_those_of_a_mixed_one(unequal):
    """Nobody's first samples are taken for all of them."""
    torch.manual_seed(2)
    real, fake = torch.randn(80, 2), torch.randn(80, 2)
    order = fake[:, 0].argsort()
    mixed, ordered = (protocol.evaluate(real, rows) for rows in (fake, fake[order]))
    for name in ("fid", "precision", "recall", "density", "coverage"):
        one, other = (found["scores"][name] for found in (mixed, ordered))
        assert one["value"] == pytest.approx(other["value"])
        assert one["high"] - one["low"] == pytest.approx(other["high"] - other["low"], rel=0.6)


def test_inception_is_shown_numbers_from_0_to_1():
    """pytorch-fid's network scales them to [-1, 1] itself."""
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append((x.min().item(), x.max().item()))
            return [x[:, :1]]

    network = InceptionFeatures.__new__(InceptionFeatures)
    nn.Module.__init__(network)
    network.network = Watch()
    network(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 2, 2))
    assert seen == [(0.0, 1.0)]
