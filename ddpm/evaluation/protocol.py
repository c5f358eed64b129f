"""The protocol of the scores: each with an interval, and beside it what real images would score as samples."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.evaluation.intervals import Interval, from_blocks, from_parts, of_fraction, standard_error
from ddpm.evaluation.manifold import Manifold, density_coverage, precision_recall
from ddpm.evaluation.scores import MIN_IMAGES, FrechetDistance, kid_blocks
from ddpm.runtime.progress import progress_bar

HALVES = 50  # their standard deviation is known to 10 %
RECALL_HALVES = 20  # each measures the samples' balls anew; known to 16 %
SPLITS = 5  # of the real images, for the floor
SCORES = ("fid", "kid", "precision", "recall", "density", "coverage")


def evaluate(real: Tensor, fake: Tensor) -> dict[str, Any]:
    """Score generated against real images, and real against real ones.

    Args:
        real: (N, D) features of the reference images.
        fake: (M, D) features of the samples, by the same extractor on the same device.

    Returns:
        scores: for each of SCORES: value, low and high, its 95 % interval; for kid also error, its standard error.
        halves: number of random halves behind the interval of fid.
        floor: None with fewer than 8 real images, else images, reference_images and number of the splits, and scores:
            for each score real, real_low and real_high: mean, least and greatest score of real images as samples; and
            model, the mean score of as many samples against the same real images. The scores depend on both numbers of
            images, so only these two can be compared.

    Raises:
        InputError: there are fewer than 4 images.
    """
    with progress_bar(HALVES + RECALL_HALVES + SPLITS, "scores", unit="step") as bar:
        blocks = kid_blocks(real, fake)
        balls = Manifold(real)
        precision, recall = precision_recall(balls, Manifold(fake))
        density, coverage = _density_coverage(balls, fake)
        scores: dict[str, dict[str, float]] = {
            "fid": asdict(fid_interval(real, fake, bar.update)),
            "kid": asdict(from_blocks(blocks)) | {"error": standard_error(blocks)},
            "precision": asdict(of_fraction(precision, len(fake))),
            "recall": asdict(_recall_interval(recall, real, fake, bar.update)),
            "density": asdict(density),
            "coverage": asdict(coverage),
        }
        floor = _floor(real, fake, bar.update)
    return {"scores": scores, "halves": HALVES, "floor": floor}


def fid_interval(real: Tensor, fake: Tensor, on_step: Callable[[], object]) -> Interval:
    """FID of all samples, with the spread that it has over random halves of them."""
    distance, parts = FrechetDistance(real, fake), []
    for half in _halves(fake, HALVES):
        parts.append(distance(half))
        on_step()
    return from_parts(distance(), np.array(parts))


def _recall_interval(recall: float, real: Tensor, fake: Tensor, on_step: Callable[[], object]) -> Interval:
    """Recall of all samples, with its spread over random halves of them: two models share the real images."""
    parts = []
    for half in _halves(fake, RECALL_HALVES):
        parts.append(float(Manifold(fake[half]).covers(real).double().mean()))
        on_step()
    return _fraction(recall, np.array(parts), len(real))


def _density_coverage(real: Manifold, fake: Tensor) -> tuple[Interval, Interval]:
    """Density and coverage of all samples, with their spread over random halves of them."""
    draws = torch.ones(1 + HALVES, len(fake), dtype=torch.bool, device=fake.device)
    for draw, half in zip(draws[1:], _halves(fake, HALVES), strict=True):
        draw[:] = False
        draw[half] = True
    density, coverage = (found.cpu().numpy() for found in density_coverage(real, fake, draws))
    return from_parts(float(density[0]), density[1:]), _fraction(float(coverage[0]), coverage[1:], len(real))


def _fraction(value: float, parts: np.ndarray, count: int) -> Interval:
    """The interval of a fraction of `count` real images; by Wilson where no half differs, as at 0."""
    if np.ptp(parts) == 0:
        return of_fraction(value, count)
    interval = from_parts(value, parts)
    return Interval(value, interval.low, min(1.0, interval.high))


def _halves(fake: Tensor, count: int) -> Iterator[Tensor]:
    """Rows of so many random halves, the same for the same number of samples."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield _rows(rng.permutation(len(fake))[: len(fake) // 2], fake)


def _floor(real: Tensor, fake: Tensor, on_step: Callable[[], object]) -> dict[str, Any] | None:
    """Let random real images play the samples, as many as there are if that is no more than half; others are real."""
    players = min(len(fake), len(real) // 2)
    if players < MIN_IMAGES:
        return None
    rng = np.random.default_rng(1)
    found: dict[str, list[dict[str, float]]] = {"model": [], "real": []}
    for _ in range(SPLITS):
        order = rng.permutation(len(real))
        reference = real[_rows(order[players:], real)]
        samples = {
            "real": real[_rows(order[:players], real)],
            "model": fake[_rows(rng.permutation(len(fake))[:players], fake)],
        }
        # One for both, because most of their work is done on the reference.
        distance, balls = FrechetDistance(reference, torch.cat([*samples.values()])), Manifold(reference)
        fids = {"real": distance(slice(players)), "model": distance(slice(players, None))}
        for who, features in samples.items():
            precision, recall = precision_recall(balls, Manifold(features))
            every = torch.ones(1, len(features), dtype=torch.bool, device=features.device)
            density, coverage = map(float, density_coverage(balls, features, every))
            mean = float(kid_blocks(reference, features).mean())
            values = (fids[who], mean, precision, recall, density, coverage)
            found[who].append(dict(zip(SCORES, values, strict=True)))
        on_step()
    about = {"images": players, "reference_images": len(real) - players, "splits": SPLITS}
    return about | {"scores": {name: _summary(found, name) for name in SCORES}}


def _summary(found: dict[str, list[dict[str, float]]], name: str) -> dict[str, float]:
    model, real = ([scores[name] for scores in found[who]] for who in ("model", "real"))
    return {"model": float(np.mean(model)), "real": float(np.mean(real)), "real_low": min(real), "real_high": max(real)}


def _rows(rows: np.ndarray, of: Tensor) -> Tensor:
    return torch.from_numpy(rows).to(of.device)
