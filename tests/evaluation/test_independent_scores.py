"""The scores beside those of other people's programs, on the same features or the same image files."""

import os
import re
import shutil
import subprocess
import sys

import cleanfid.fid
import numpy as np
import prdc
import pytest
import torch
from PIL import Image
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from ddpm.evaluation.features import extract, load_extractor
from ddpm.evaluation.manifold import Manifold, density_coverage, precision_recall
from ddpm.evaluation.scores import fid, squared_mmd


@pytest.fixture(scope="module")
def sets():
    """Features like a network's: not negative, skewed, correlated; 400 real and 350 generated images."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((48, 48)) / 7
    real = np.maximum(rng.standard_normal((400, 48)) @ mixing + 0.2, 0)
    fake = np.maximum(rng.standard_normal((350, 48)) @ mixing * 0.8 + 0.3, 0)
    return torch.from_numpy(real), torch.from_numpy(fake)


def test_fid_is_that_of_torch_fidelity(sets):
    statistics = [fid_features_to_statistics(features) for features in sets]
    theirs = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert fid(*sets) == pytest.approx(theirs, rel=1e-6)


def test_fid_is_that_of_clean_fid(sets):
    real, fake = (features.numpy() for features in sets)
    assert fid(*sets) == pytest.approx(cleanfid.fid.fid_from_feats(real, fake), rel=1e-6)


def test_the_squared_mmd_is_that_of_torch_fidelity(sets):
    count = min(map(len, sets))
    real, fake = (features[:count] for features in sets)
    theirs = kid_features_to_metric(
        real, fake, kid_subsets=1, kid_subset_size=count, kid_kernel="poly", verbose=False, rng_seed=0
    )
    assert squared_mmd(real, fake) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)


def test_the_squared_mmd_is_that_of_clean_fid(sets):
    count = min(map(len, sets))
    real, fake = (features[:count] for features in sets)
    theirs = cleanfid.fid.kernel_distance(real.numpy(), fake.numpy(), num_subsets=1)
    assert squared_mmd(real, fake) == pytest.approx(theirs, rel=1e-9)


def test_precision_and_recall_are_those_of_prdc(sets):
    real, fake = (features.numpy() for features in sets)
    theirs = prdc.compute_prdc(real, fake, nearest_k=3)
    assert 0.05 < theirs["recall"] < theirs["precision"] < 0.99  # the sets do tell the two apart
    assert precision_recall(*map(Manifold, sets)) == (theirs["precision"], theirs["recall"])


def test_density_and_coverage_are_those_of_prdc(sets):
    real, fake = (features.numpy() for features in sets)
    theirs = prdc.compute_prdc(real, fake, nearest_k=5)
    density, coverage = density_coverage(Manifold(sets[0]), sets[1], torch.ones(1, len(fake), dtype=torch.bool))
    assert 0.05 < theirs["coverage"] < 0.99
    assert density.item() == pytest.approx(theirs["density"], rel=1e-12)
    assert coverage.item() == pytest.approx(theirs["coverage"], rel=1e-12)


def test_precision_and_recall_are_those_of_torch_fidelity(sets):
    real, fake = sets
    theirs = prc_features_to_metric(
        fake, real, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False, verbose=False
    )
    assert precision_recall(Manifold(real), Manifold(fake)) == pytest.approx(
        (theirs["precision"], theirs["recall"]), abs=1e-6
    )


def gradients(seed, count, side=32):
    """Colour gradients with a spot: (count, side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:side, :side] / side
    images = []
    for _ in range(count):
        base, slope, spot = rng.uniform(0, 120, (3, 3))
        (x, y), radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.1, 0.3)
        inside = (row - x) ** 2 + (column - y) ** 2 < radius**2
        images.append(base + slope * row[..., None] + spot * inside[..., None])
    return np.array(images).clip(0, 255).astype(np.uint8)


@pytest.mark.slow
def test_fid_is_that_of_the_command_pytorch_fid_on_image_files(inception_weights, tmp_path):
    """With random weights in the true format: the figure means nothing, but both must find the same."""
    sets = gradients(0, 70), gradients(1, 50)
    for name, images in zip("ab", sets, strict=True):
        (tmp_path / name).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{index:03}.png")
    weights = tmp_path / "hub/checkpoints" / inception_weights.name  # where PyTorch would keep the download
    weights.parent.mkdir(parents=True)
    shutil.copyfile(inception_weights, weights)
    command = [sys.executable, "-m", "pytorch_fid", "a", "b", "--device", "cpu", "--num-workers", "0"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"TORCH_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = float(re.search(r"FID:\s*(\S+)", done.stdout).group(1))
    network = load_extractor("inception", inception_weights, torch.device("cpu"))
    ours = fid(*(torch.from_numpy(extract(images, network, 50)) for images in sets))
    assert theirs > 0.01
    assert ours == pytest.approx(theirs, rel=1e-3)
