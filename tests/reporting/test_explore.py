"""The walk through data and schedules: its numbers against closed forms, its page against the files."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ddpm.config import Config, parse_config
from ddpm.data.dataset import PackedImages, split_holdout
from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.schedules import SCHEDULES, log_snr
from ddpm.reporting.explore import data_facts, loss_weights, marks, pixel_moments, schedule_facts
from ddpm.reporting.report import plain
from ddpm.runtime.paths import PROCESSED
from stages import explore as stage

HOSTILE = ["rose|tulip", "<script>alert(1)</script>", "![x](../../secret.png)", "*a* [b](javascript:c) `d` $e$\nf"]


def packed(count: int = 24, names: list[str] | None = None) -> PackedImages:
    """Random images; image i is of class i modulo the number of names."""
    names = names or ["rose", "tulip", "lily"]
    labels = np.arange(count) % len(names)
    items = pd.DataFrame(
        {
            "id": [f"{names[label]}/{row}" for row, label in enumerate(labels)],
            "label": labels,
            "width": np.arange(count) + 100,
            "height": 80,
        }
    )
    images = np.random.default_rng(0).integers(256, size=(count, 16, 16, 3), dtype=np.uint8)
    counts = np.bincount(labels, minlength=len(names)).tolist()
    summary = {"source": "folder", "image_size": 16, "count": count, "class_names": names, "class_counts": counts}
    return PackedImages(images, items, summary)


def explored(folder: Path, config: Config, data: PackedImages, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Run the stage in a new folder; returns the files that it writes."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    data.save(PROCESSED)
    stage.main(config)
    return {str(path): path.read_bytes() for path in Path("reports").rglob("*") if path.is_file()}


@pytest.fixture
def small(params) -> Config:
    params["data"] |= {"image_size": 16}
    params["model"]["channel_mults"] = [1, 2]
    return parse_config(params)


@pytest.mark.parametrize("count", [3, 256, 300])
def test_moments_are_those_of_the_pixels_as_the_network_sees_them(count):
    images = np.random.default_rng(0).integers(100, 256, size=(count, 4, 5, 3), dtype=np.uint8)
    mean, variance = pixel_moments(images)
    scaled = images / 127.5 - 1
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(variance, scaled.var(axis=(0, 1, 2)), atol=1e-12)


def test_moments_of_black_and_white_are_exact():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[1] = 255
    mean, variance = pixel_moments(images)
    assert mean.tolist() == [0, 0, 0] and variance.tolist() == [1, 1, 1]


def test_facts_count_every_image_and_the_held_out_ones():
    data = packed(20, ["few", "many"])
    data.items["label"] = [0] * 5 + [1] * 15
    data.summary["class_counts"] = [5, 15]
    facts = data_facts(data, np.array([0, 1, 2, 19]))
    assert facts["classes"] == [("many", 15, 1), ("few", 5, 3)]
    assert facts["width"] == [100, 110, 119] and facts["height"] == [80, 80, 80]


def test_log_snr_is_its_definition_also_at_the_ends():
    levels = torch.tensor([1 - 1e-12, 0.9, 0.5, 1e-9], dtype=torch.float64)
    expected = [math.log((1 - 1e-12) / 1e-12), math.log(9), 0, math.log(1e-9)]
    assert log_snr(levels).tolist() == pytest.approx(expected, abs=1e-4)
    diffusion = Diffusion("cosine", 100, "eps")
    for t, value in enumerate(log_snr(diffusion.alphas_cumprod).tolist()):
        assert value == pytest.approx(2 * diffusion.half_log_snr(t), abs=1e-9)


def test_cosine_and_sigmoid_facts_follow_their_closed_forms():
    facts = schedule_facts(1000, 1.0)
    # Cosine: ᾱ < 0.01 where cos² of the angle, divided by that of the offset, is.
    start = math.cos(0.008 / 1.008 * math.pi / 2)
    last_signal = math.acos(0.1 * start) * 2 / math.pi * 1.008 - 0.008
    assert facts["cosine"]["noise"] == pytest.approx(1 - last_signal, abs=0.001)
    # Sigmoid: symmetric, so that exactly the last half is mostly noise; u = (t + 1) / 1000.
    assert facts["sigmoid"]["even"] == 500
    assert facts["sigmoid"]["clean"] == pytest.approx(facts["sigmoid"]["noise"], abs=0.002)
    level = (torch.sigmoid(torch.tensor(3.0)) - torch.sigmoid(torch.tensor(6 * 0.251 - 3))) / (
        torch.sigmoid(torch.tensor(3.0)) - torch.sigmoid(torch.tensor(-3.0))
    )
    assert facts["sigmoid"]["levels"][1] == pytest.approx(level.item(), abs=1e-6)


def test_linear_facts_follow_the_product_of_its_alphas():
    facts = schedule_facts(1000, 0.25)["linear"]
    levels = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    assert facts["levels"] == pytest.approx([levels[step] for step in (0, 250, 500, 749, 999)], rel=1e-9)
    assert facts["noise"] == np.mean(levels < 0.01) and facts["clean"] == np.mean(levels > 0.99)
    assert facts["even"] == np.argmax(levels < 0.5)
    assert facts["even_here"] == np.argmax(0.25 * levels < 1 - levels)
    assert facts["log_snr"] == pytest.approx([math.log(levels[end] / (1 - levels[end])) for end in (0, -1)])


@pytest.mark.parametrize("timesteps", [2, 3, 10, 1000])
def test_marks_run_from_the_first_to_the_last_step(timesteps):
    assert marks(timesteps)[0] == 0 and marks(timesteps)[-1] == timesteps - 1
    assert sorted(set(marks(timesteps))) == marks(timesteps)
    assert all(len(facts["levels"]) == len(marks(timesteps)) for facts in schedule_facts(timesteps, 0.0).values())


def test_the_weights_are_the_ratio_of_the_losses_of_one_wrong_image():
    x0, wrong, eps = torch.randn(3, 1, 3, 8, 8, dtype=torch.float64)
    for t in (50, 250, 600):
        for target in ("eps", "v", "x0"):
            diffusion = Diffusion("linear", 1000, target)
            level, step = diffusion.alphas_cumprod[t], torch.tensor([t])
            x_t = level.sqrt() * x0 + (1 - level).sqrt() * eps
            eps_of_wrong = (x_t - level.sqrt() * wrong) / (1 - level).sqrt()
            loss = (diffusion.target_of(x0, step, eps) - diffusion.target_of(wrong, step, eps_of_wrong)).square().sum()
            snr = level / (1 - level)
            expected = {"eps": snr, "v": snr + 1, "x0": 1.0}[target]
            assert (loss / (x0 - wrong).square().sum()).item() == pytest.approx(float(expected), rel=1e-4)
    for level, weight in loss_weights():
        assert weight == {"eps": math.exp(level), "v": math.exp(level) + 1, "x0": 1}


def test_the_stage_gives_the_same_bytes_twice_and_its_page_shows_every_picture(tmp_path, small, monkeypatch):
    files = explored(tmp_path / "a", small, packed(), monkeypatch)
    assert explored(tmp_path / "b", small, packed(), monkeypatch) == files
    markdown = files["reports/explore.md"].decode()
    shown = re.findall(r"^!\[[^\]]+\]\((.+)\)$", markdown, re.MULTILINE)
    assert {f"reports/{name}" for name in shown} == {name for name in files if name.endswith(".png")}
    assert files["reports/explore.html"].decode().count("data:image/png;base64,") == len(shown) == 12
    assert max(map(len, files.values())) < 4_000_000


def test_the_list_of_held_out_images_is_the_one_that_training_uses(tmp_path, small, monkeypatch):
    data = packed()
    explored(tmp_path / "a", small, data, monkeypatch)
    _, heldout = split_holdout(data.items["id"].tolist(), small.data.holdout)
    listed = pd.read_csv("reports/explore/heldout.csv")
    assert listed["id"].tolist() == data.items["id"].iloc[heldout].tolist() and len(listed) == 2


def test_a_network_that_sees_all_images_and_a_short_process_are_described_too(tmp_path, params, monkeypatch):
    params["data"] |= {"image_size": 16, "holdout": 0.0}
    params["model"]["channel_mults"] = [1, 2]
    params["diffusion"]["timesteps"] = params["sample"]["steps"] = 2
    params["train"]["flip"] = False
    files = explored(tmp_path / "a", parse_config(params), packed(4, ["one class"]), monkeypatch)
    page = files["reports/explore.md"].decode()
    assert "`data.holdout` is 0, so all 4 images train" in page and "explore/heldout.png" not in page
    assert "mirrored" not in page and "| ᾱ at step | 0 | 1 |" in page and "| class |" not in page


def test_names_of_classes_and_files_never_become_markup(tmp_path, small, monkeypatch):
    data = packed(24, HOSTILE)
    files = explored(tmp_path / "a", small, data, monkeypatch)
    page = files["reports/explore.html"].decode()
    assert "<script" not in page and 'href="javascript' not in page
    assert page.count("<img") == len([name for name in files if name.endswith(".png")])
    assert "<td>rose|tulip</td>" in page and "<td>*a* [b](javascript:c) `d` $e$ f</td>" in page
    assert plain("a\n b") == "a b"


def test_every_schedule_is_in_all_tables(tmp_path, small, monkeypatch):
    page = explored(tmp_path / "a", small, packed(4), monkeypatch)["reports/explore.md"].decode()
    for name in SCHEDULES:
        assert page.count(f"\n| {name} |") == 2 and f"\n{name} " in page
