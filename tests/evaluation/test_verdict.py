"""What a report says first: never "as good as photographs" of what is not."""

import numpy as np
import pytest
import torch

from ddpm.evaluation.memorisation import memorisation
from ddpm.evaluation.protocol import evaluate
from ddpm.evaluation.verdict import verdict

GOOD = "as good as photographs"
DIMS, REAL = 24, 700


def photographs(seed, count, kinds=7):
    """Features of photographs: clusters of kinds."""
    rng = np.random.default_rng(seed)
    centres = 4 * np.random.default_rng(99).standard_normal((kinds, DIMS))
    return torch.from_numpy(centres[rng.integers(kinds, size=count)] + rng.standard_normal((count, DIMS))).float()


def judged(fake):
    real, heldout = photographs(0, REAL), photographs(1, 210)
    copies = memorisation(torch.cat([real, photographs(2, REAL)]), heldout, fake, shown=8)
    evaluation = evaluate(real, fake)
    ratio = copies.ratio and vars(copies.ratio)
    return verdict(evaluation | {"scores": evaluation["scores"] | {"memorisation": ratio}})


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


def test_a_few_copies_among_good_samples_spoil_the_verdict():
    fake = photographs(3, 300)
    fake[:30] = photographs(0, REAL)[:30] + 0.01
    assert not any(GOOD in sentence for sentence in judged(fake))


def test_scores_of_earlier_versions_have_a_verdict_too():
    """They lack density and coverage."""
    floor = {name: {"model": 1.0, "real": 0.5, "real_low": 0.4, "real_high": 0.6} for name in ("fid", "kid", "recall")}
    floor["precision"] = {"model": 0.97, "real": 0.75, "real_low": 0.7, "real_high": 0.8}
    sentences = verdict({"scores": {"memorisation": None}, "floor": {"scores": floor}})
    assert [sentence.split(":")[0] for sentence in sentences] == ["Not yet photographs", "Flattering"]


def test_without_a_floor_nothing_is_claimed():
    assert verdict({"scores": {}, "floor": None})[0].startswith("Not comparable")
