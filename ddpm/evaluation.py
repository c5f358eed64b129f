"""The protocol of the scores: each with an interval, and beside it what real images would score as samples."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.intervals import Interval, from_blocks, from_parts, of_fraction, standard_error
from ddpm.manifold import precision_recall
from ddpm.progress import progress_bar
from ddpm.scores import MIN_IMAGES, FrechetDistance, kid_blocks

HALVES = 50  # their standard deviation is known to 10 %
SPLITS = 5  # of the real images, for the floor


def evaluate(real: Tensor, fake: Tensor) -> dict[str, Any]:
    """Score generated against real images, and real against real ones.

    Args:
        real: (N, D) features of the reference images.
        fake: (M, D) features of the samples, by the same extractor on the same device.

    Returns:
        scores: for each of fid, kid, precision and recall: value, low, high (its 95 % interval) and, where there are 8
            real images or more, floor, floor_low and floor_high: mean, least and greatest score of real images as
            samples. For kid also error, its standard error. FID falls with the number of images, so it has a floor only
            if that is of as many as there are samples; fid_same_n has both with the floor's numbers of images.
        halves: number of random halves behind the interval of fid.
        floor: images, reference_images and number of the splits behind the floor, or None.

    Raises:
        InputError: there are fewer than 4 images.
    """
    with progress_bar(HALVES + SPLITS, "scores", unit="step") as bar:
        blocks = kid_blocks(real, fake)
        precision, recall = precision_recall(real, fake)
        scores: dict[str, dict[str, float]] = {
            "fid": asdict(fid_interval(real, fake, bar.update)),
            "kid": asdict(from_blocks(blocks)) | {"error": standard_error(blocks)},
            "precision": asdict(of_fraction(precision, len(fake))),
            "recall": asdict(of_fraction(recall, len(real))),
        }
        floor = _add_floor(scores, real, fake, bar.update)
    return {"scores": scores, "halves": HALVES, "floor": floor}


def fid_interval(real: Tensor, fake: Tensor, on_step: Callable[[], object]) -> Interval:
    """FID of all samples, with the spread that it has over random halves of them."""
    distance, rng = FrechetDistance(real, fake), np.random.default_rng(0)
    parts = []
    for _ in range(HALVES):
        parts.append(distance(_rows(rng.permutation(len(fake))[: len(fake) // 2], fake)))
        on_step()
    return from_parts(distance(), np.array(parts))


def _add_floor(
    scores: dict[str, dict[str, float]], real: Tensor, fake: Tensor, on_step: Callable[[], object]
) -> dict[str, int] | None:
    """Let random real images play the samples, as many as there are if that is no more than half; others are real."""
    players = min(len(fake), len(real) // 2)
    if players < MIN_IMAGES:
        return None
    rng = np.random.default_rng(1)
    floors: dict[str, list[float]] = {name: [] for name in scores}
    same_n = []
    for _ in range(SPLITS):
        order = rng.permutation(len(real))
        as_fake, as_real = real[_rows(order[:players], real)], real[_rows(order[players:], real)]
        some = fake[_rows(rng.permutation(len(fake))[:players], fake)]
        same_n.append(FrechetDistance(as_real, some)())
        floors["fid"].append(FrechetDistance(as_real, as_fake)())
        floors["kid"].append(float(kid_blocks(as_real, as_fake).mean()))
        for name, value in zip(("precision", "recall"), precision_recall(as_real, as_fake), strict=True):
            floors[name].append(value)
        on_step()
    scores["fid_same_n"] = {"value": float(np.mean(same_n))}
    floors["fid_same_n"] = floors["fid"]
    if players < len(fake):
        del floors["fid"]
    for name, values in floors.items():
        scores[name] |= {"floor": float(np.mean(values)), "floor_low": min(values), "floor_high": max(values)}
    return {"images": players, "reference_images": len(real) - players, "splits": SPLITS}


def _rows(rows: np.ndarray, of: Tensor) -> Tensor:
    return torch.from_numpy(rows).to(of.device)
