"""What a report says first: never "as good as photographs" of what is not."""

import numpy as np
import pytest
import torch

from ddpm.evaluation.memorisation import closest, memorisation
from ddpm.evaluation.protocol import evaluate
from ddpm.evaluation.verdict import verdict

GOOD = "as good as photographs"
DIMS, REAL = 24, 700
NEW = {"value": 1.0, "low": 0.9, "high": 1.1}  # memorisation of new images


def photographs(seed, count, kinds=7):
    """Features of photographs: clusters of kinds."""
    rng = np.random.default_rng(seed)
    centres = 4 * np.random.default_rng(99).standard_normal((kinds, DIMS))
    return torch.from_numpy(centres[rng.integers(kinds, size=count)] + rng.standard_normal((count, DIMS))).float()


def judged(fake, heldout=210):
    real, heldout = photographs(0, REAL), photographs(1, heldout)
    copies = memorisation(torch.cat([real, photographs(2, REAL)]), heldout, fake, shown=8)
    evaluation = evaluate(real, fake)
    ratio = copies.ratio and vars(copies.ratio)
    about = {"no_memorisation": copies.reason, "scores": evaluation["scores"] | {"memorisation": ratio}}
    return verdict(evaluation | about)


def test_photographs_are_as_good_as_photographs():
    assert [GOOD in sentence for sentence in judged(photographs(3, 300))] == [True]


def test_averaged_photographs_are_far_from_photographs():
    """As those of a hardly trained model: all near the middle of the data."""
    fake = (photographs(3, 300) + photographs(4, 300) + photographs(5, 300)) / 3
    sentences = judged(0.25 * fake + 0.75 * photographs(0, REAL).mean(dim=0))
    assert sentences[0].startswith("Far from photographs: FID")
    assert "they cover" in sentences[0]


def test_blurred_photographs_flatter():
    centres = 4 * torch.from_numpy(np.random.default_rng(99).standard_normal((7, DIMS))).float()
    sharp = photographs(3, 300)
    nearest = centres[torch.cdist(sharp, centres).argmin(dim=1)]
    sentences = judged(nearest + 0.3 * (sharp - nearest))
    assert not any(GOOD in sentence for sentence in sentences)
    assert any(sentence.startswith("Flattering: precision 1.00") and "density" in sentence for sentence in sentences)


def test_one_kind_of_seven_is_too_little_variety():
    sentences = judged(photographs(3, 2000)[torch.cdist(photographs(3, 2000), photographs(3, 1)).flatten() < 9][:250])
    assert not any(GOOD in sentence for sentence in sentences) and "photographs: FID" in sentences[0]


@pytest.mark.parametrize("mirrored", [False, True])
def test_copies_are_said_first(mirrored):
    copied = photographs(2 if mirrored else 0, REAL)[:300]
    sentences = judged(copied + 0.01 * photographs(6, 300))
    assert sentences[0].startswith("Copies: ") and not any(GOOD in sentence for sentence in sentences)


@pytest.mark.parametrize("copied", [0, 15, 300])
def test_where_copies_are_not_looked_for_nothing_is_as_good_as_photographs(copied):
    fake = photographs(3, 300)
    fake[:copied] = photographs(0, REAL)[:copied]
    sentences = judged(fake, heldout=199)
    assert not any(GOOD in sentence for sentence in sentences)
    assert sentences[-1].startswith("Perhaps copies") and "199 held-out images are too few" in sentences[-1]


def test_identical_real_images_have_a_verdict():
    floor = {name: {"model": 0.0, "real": 0.0, "real_low": 0.0, "real_high": 0.0} for name in ("fid", "recall")}
    floor["fid"]["model"] = 19.3
    sentences = verdict({"scores": {"memorisation": NEW}, "floor": {"scores": floor}})
    assert sentences == ["Far from photographs: FID 19.3, where as many photographs score 0.0."]


@pytest.mark.parametrize(
    ("ratio", "said"), [(0.0, "more than 100"), (2e-3, "more than 100"), (0.04, "25"), (0.4, "2.5")]
)
def test_copies_are_said_with_a_number_that_people_read(ratio, said):
    memorisation = {"value": ratio, "low": 0.0, "high": 0.5}
    sentences = verdict({"scores": {"memorisation": memorisation}, "floor": None})
    assert f"the closest samples are {said} times nearer to training images" in sentences[0]


@pytest.mark.parametrize(
    ("model", "begins"),
    [
        ({}, "No score distinguishes"),
        ({"fid": 10.7}, "Not yet photographs: FID 10.7, where as many photographs score 10.0; they cover 50%"),
        ({"fid": 29.0}, "Not yet photographs"),
        ({"fid": 31.0}, "Far from photographs"),
        ({"coverage": 0.4}, "Too little variety"),
        ({"recall": 0.4}, "Too little variety"),
        ({"precision": 0.6}, "Flattering: precision 0.60 (0.50)"),
        ({"density": 0.6}, "Flattering: density 0.60 (0.50)"),
        ({"precision": 0.54, "density": 0.54}, "No score distinguishes"),  # within what photographs themselves score
    ],
)
def test_a_score_is_judged_by_what_photographs_score(model, begins):
    floor = {"fid": {"model": 10.0, "real": 10.0, "real_low": 9.5, "real_high": 10.5}} | {
        name: {"model": 0.5, "real": 0.5, "real_low": 0.45, "real_high": 0.55}
        for name in ("precision", "recall", "density", "coverage")
    }
    for name, value in model.items():
        floor[name]["model"] = value
    sentences = verdict({"scores": {"memorisation": NEW}, "floor": {"scores": floor}})
    assert len(sentences) == 1 and sentences[0].startswith(begins)


@pytest.mark.parametrize(("value", "high", "begins"), [(0.4, 0.9, "Copies:"), (0.6, 0.9, "Perhaps"), (0.6, 1.0, "Not")])
def test_copies_are_said_where_the_interval_is_below_1(value, high, begins):
    memorisation = {"value": value, "low": 0.1, "high": high}
    assert verdict({"scores": {"memorisation": memorisation}, "floor": None})[0].startswith(begins)


def test_the_closest_are_one_in_twenty():
    assert closest(np.arange(100.0)[::-1]) == 2.0 and closest(np.arange(3.0)) == 0.0


def test_a_few_copies_among_good_samples_spoil_the_verdict():
    fake = photographs(3, 300)
    fake[:30] = photographs(0, REAL)[:30] + 0.01
    assert not any(GOOD in sentence for sentence in judged(fake))


def test_scores_of_earlier_versions_have_a_verdict_too():
    """They lack density and coverage."""
    floor = {name: {"model": 1.0, "real": 0.5, "real_low": 0.4, "real_high": 0.6} for name in ("fid", "kid", "recall")}
    floor["precision"] = {"model": 0.97, "real": 0.75, "real_low": 0.7, "real_high": 0.8}
    sentences = verdict({"scores": {"memorisation": None}, "floor": {"scores": floor}})
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "Not yet photographs",
        "Flattering",
    ]
    floor["fid"] |= {"model": 0.5}
    floor["recall"] |= {"model": 0.5}
    sentences = verdict({"scores": {"memorisation": None}, "floor": {"scores": floor}})
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "Flattering",
        "Perhaps copies, whose scores are good",
    ]


def test_without_a_floor_nothing_is_claimed():
    assert verdict({"scores": {}, "floor": None})[0].startswith("Not comparable")
