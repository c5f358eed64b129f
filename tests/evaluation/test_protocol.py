"""Known answers of the whole protocol: what must be worse, what must be equal, and who copies."""

import numpy as np
import pytest
import torch

from ddpm.evaluation.manifold import Manifold, density_coverage, nearest, precision_recall
from ddpm.evaluation.memorisation import memorisation
from ddpm.evaluation.protocol import evaluate
from ddpm.evaluation.scores import fid


def normal(seed, count, dims=16, scale=1.0):
    return torch.from_numpy(scale * np.random.default_rng(seed).standard_normal((count, dims))).float()


def test_a_perfect_model_scores_like_the_floor():
    evaluation = evaluate(normal(0, 400), normal(1, 200))
    assert {"images": 200, "reference_images": 200, "splits": 5}.items() <= evaluation["floor"].items()
    floor = evaluation["floor"]["scores"]
    for name, wide in (("fid", 0.15), ("precision", 0.1), ("recall", 0.1)):
        assert floor[name]["model"] == pytest.approx(floor[name]["real"], rel=wide)
        assert floor[name]["real_low"] <= floor[name]["real"] <= floor[name]["real_high"]
    kid = evaluation["scores"]["kid"]
    assert kid["low"] < 0 < kid["high"]
    assert abs(floor["kid"]["real"]) < 3 * kid["error"]


@pytest.mark.parametrize(("real", "fake"), [(1000, 480), (200, 600)])
def test_a_perfect_model_is_not_below_the_floor_at_any_numbers_of_images(real, fake):
    """Its FID with all images is: it falls with the number of real images and with that of samples."""
    evaluation = evaluate(normal(0, real, dims=64), normal(1, fake, dims=64))
    floor = evaluation["floor"]["scores"]["fid"]
    assert evaluation["scores"]["fid"]["high"] < floor["real_low"]
    assert floor["model"] == pytest.approx(floor["real"], rel=0.1)


def test_a_bad_model_is_far_above_the_floor():
    evaluation = evaluate(normal(0, 400), normal(1, 200, scale=1.5))
    scores, floor = evaluation["scores"], evaluation["floor"]["scores"]
    assert (
        scores["fid"]["low"] > 2 * floor["fid"]["real_high"] and floor["fid"]["model"] > 2 * floor["fid"]["real_high"]
    )
    assert scores["kid"]["low"] > 0
    assert scores["precision"]["high"] < floor["precision"]["real_low"]


def test_few_samples_are_compared_with_as_few_real_images():
    floor = evaluate(normal(0, 400), normal(1, 50))["floor"]
    assert (floor["images"], floor["reference_images"]) == (50, 350)


def test_too_few_real_images_have_no_floor():
    evaluation = evaluate(normal(0, 7), normal(1, 20))
    assert evaluation["floor"] is None and evaluation["scores"]["fid"]["value"] > 0


def test_the_same_features_give_the_same_scores():
    assert evaluate(normal(0, 60), normal(1, 60)) == evaluate(normal(0, 60), normal(1, 60))


def test_fid_falls_with_the_number_of_samples():
    real = normal(0, 3000)
    means = [
        np.mean([fid(real, normal(10 * count + k, count)) for k in range(5)]) for count in (30, 60, 120, 500, 2000)
    ]
    assert means == sorted(means, reverse=True)


def test_fid_and_kid_grow_with_noise():
    real, fake = normal(0, 500), normal(1, 300)
    scores = [evaluate(real, fake + normal(2, 300, scale=noise))["scores"] for noise in (0, 1, 2, 4)]
    for name in ("fid", "kid"):
        values = [score[name]["value"] for score in scores]
        assert values == sorted(values)


def test_fewer_modes_lower_recall_and_leave_precision():
    """A model that generates two kinds of eight is as precise as one of all eight, and recalls a quarter of it."""
    centres = 20 * normal(5, 8)
    real = torch.cat([centre + normal(kind, 60) for kind, centre in enumerate(centres)])
    all_kinds = torch.cat([centre + normal(100 + kind, 30) for kind, centre in enumerate(centres)])
    two_kinds = torch.cat([centre + normal(200 + kind, 120) for kind, centre in enumerate(centres[:2])])
    (precision_all, recall_all), (precision_two, recall_two) = (
        precision_recall(Manifold(real), Manifold(x)) for x in (all_kinds, two_kinds)
    )
    assert precision_two == pytest.approx(precision_all, abs=0.1)
    assert recall_all > 0.6 and recall_two <= 0.25


def test_a_set_covers_itself():
    features = normal(0, 50)
    assert precision_recall(Manifold(features), Manifold(features)) == (1.0, 1.0)


def test_the_balls_reach_to_the_third_neighbour():
    line = torch.tensor([[0.0], [1.0], [3.0], [6.0], [10.0]])
    # The ball around 0 reaches to 6, that around 10 to 1 (9 away).
    covered = Manifold(line).covers(torch.tensor([[-6.0], [-6.1], [19.0], [19.1]]))
    assert covered.tolist() == [True, False, True, False]


def test_nearest_is_found_across_chunks():
    x, y = normal(0, 1500, 3), normal(1, 1300, 3)
    distance, row = nearest(x, y)
    brute = (x[:, None].double() - y[None].double()).norm(dim=2)
    assert torch.equal(row, brute.argmin(dim=1))
    torch.testing.assert_close(distance, brute.min(dim=1).values)


def with_mirrors(train):
    """Features of training images, and others in the place of those of their mirrors."""
    return torch.cat([train, normal(77, *train.shape)])


def test_new_images_are_no_copies():
    result = memorisation(with_mirrors(normal(0, 800)), normal(1, 200), normal(2, 400), shown=8)
    assert result.ratio.low < 1 < result.ratio.high


def test_new_images_are_seldom_called_copies():
    """An interval of 95 % is wholly below 1 in 2.5 of 100; here are as few held-out images as are allowed."""
    draws = [
        memorisation(with_mirrors(normal(3 * k, 500)), normal(3 * k + 1, 200), normal(3 * k + 2, 300), 1)
        for k in range(60)
    ]
    assert sum(draw.ratio.high < 1 for draw in draws) <= 7


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("copies", [400, 40])
def test_copied_training_images_are_flagged_even_if_few_or_mirrored(copies, mirrored):
    train, fake = with_mirrors(normal(0, 800)), normal(2, 400)
    fake[:copies] = train.view(2, 800, -1)[int(mirrored), :copies] + 1e-3 * normal(3, copies)
    result = memorisation(train, normal(1, 200), fake, shown=8)
    assert result.ratio.high < 0.5
    assert set(result.samples) <= set(range(copies))
    assert list(result.neighbours) == list(result.samples)  # the very images that were copied


def test_without_heldout_images_nothing_is_said_of_copies():
    result = memorisation(with_mirrors(normal(0, 80)), normal(1, 199), normal(2, 40), shown=8)
    assert result.ratio is None and "199 held-out images" in result.reason
    assert len(result.samples) == 8


@pytest.mark.parametrize("mirrored", [False, True])
def test_held_out_duplicates_of_training_images_are_left_out(mirrored):
    """A few of them would set the distance that is usual to nearly 0, and pass any model."""
    train, heldout, fake = with_mirrors(normal(0, 800)), normal(1, 240), normal(2, 400)
    alone = memorisation(train, heldout[8:], fake, shown=8)
    heldout[:8] = train.view(2, 800, -1)[int(mirrored), 100:108]
    result = memorisation(train, heldout, fake, shown=8)
    assert (result.ratio, result.duplicates, alone.duplicates) == (alone.ratio, 8, 0)


def test_too_many_duplicates_leave_nothing_to_compare_with():
    train = normal(0, 300)
    result = memorisation(with_mirrors(train), train[:220], normal(2, 40), shown=8)
    assert result.ratio is None and "0 held-out images, without 220 that are duplicates" in result.reason


def test_identical_images_throughout_are_no_crash():
    same = torch.ones(300, 4)
    result = memorisation(torch.cat([same, same]), same, same, shown=8)
    assert result.ratio is None and result.duplicates == 300


def every(fake):
    return torch.ones(1, len(fake), dtype=torch.bool)


def test_density_and_coverage_by_hand():
    """Balls around 0, 1, 3, 6, 10 and 20 reach to the fifth neighbour: 20, 19, 17, 14, 10, 20; the edge is outside."""
    real = torch.tensor([[0.0], [1.0], [3.0], [6.0], [10.0], [20.0]])
    fake = torch.tensor([[-4.0], [0.0], [40.0]])
    # -4 lies in the balls of 0, 1, 3, 6; 0 in those of 0, 1, 3, 6 (10 and 20 have it at their edge); 40 in none (edge).
    density, coverage = density_coverage(Manifold(real), fake, every(fake))
    assert density.item() == pytest.approx((4 + 4) / (5 * 3)) and coverage.item() == pytest.approx(4 / 6)


def test_density_of_few_real_images_counts_the_balls_that_there_are():
    """Around 0, 1 and 3 balls reach to the second neighbour, the last there is: 3, 2, 3."""
    density, coverage = density_coverage(
        Manifold(torch.tensor([[0.0], [1.0], [3.0]])), torch.tensor([[0.5]]), every([0])
    )
    assert density.item() == pytest.approx(3 / 2) and coverage.item() == 1


def test_density_and_coverage_of_a_part_are_those_of_the_part_alone():
    real, fake = normal(0, 1500), normal(1, 300, scale=0.8)
    half = torch.arange(300) % 2 == 0
    both = density_coverage(Manifold(real), fake, torch.stack([every(fake)[0], half]))
    alone = density_coverage(Manifold(real), fake[half], every(fake[half]))
    assert [found[1].item() for found in both] == [found.item() for found in alone]


def test_recall_and_coverage_vary_with_the_samples_and_density_with_them():
    """The spread of many independent sets of samples, which the intervals of one set stand for."""
    real = normal(0, 600)
    drawn = [evaluate(real, normal(100 + k, 200))["scores"] for k in range(12)]
    for name in ("recall", "density", "coverage"):
        spread = np.std([scores[name]["value"] for scores in drawn], ddof=1)
        width = np.mean([scores[name]["high"] - scores[name]["low"] for scores in drawn]) / (2 * 1.96)
        assert 0.5 < width / spread < 2, name


def test_nothing_recalled_is_still_an_interval():
    scores = evaluate(normal(0, 100), normal(1, 50) + 100)["scores"]
    for name in ("recall", "coverage"):
        assert scores[name]["value"] == scores[name]["low"] == 0 < scores[name]["high"] < 0.1


def test_duplicates_are_left_out_also_where_the_samples_are_copies():
    train, heldout = torch.cat([normal(0, 800), normal(77, 800)]), normal(1, 240)
    heldout[:8] = train[100:108] + 1e-6 * normal(5, 8)
    result = memorisation(train, heldout, train[:400].clone(), shown=8)
    assert result.duplicates == 8 and result.ratio.high < 0.5


def test_density_and_coverage_are_of_all_chunks_of_balls(monkeypatch):
    real, fake = normal(0, 50), normal(1, 30)
    whole = density_coverage(Manifold(real), fake, every(fake))
    monkeypatch.setattr("ddpm.evaluation.manifold.CHUNK", 7)
    for ours, theirs in zip(density_coverage(Manifold(real), fake, every(fake)), whole, strict=True):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-12) and ours > 0
