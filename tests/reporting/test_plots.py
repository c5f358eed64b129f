"""Pictures drawn by matplotlib: what they show, and that their bytes follow from the data alone."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from ddpm.data.dataset import PackedImages
from ddpm.reporting import data_plots, plots, schedule_plots
from ddpm.reporting.training_curves import training_facts


def packed(sizes):
    """One grey image for each (width, height)."""
    count = len(sizes)
    items = pd.DataFrame(sizes, columns=["width", "height"])
    items.insert(0, "label", np.arange(count) % 2)
    items.insert(0, "id", [f"image {index}" for index in range(count)])
    summary = {"class_names": ["rose", "tulip"], "class_counts": np.bincount(items["label"], minlength=2).tolist()}
    return PackedImages(np.full((count, 8, 8, 3), 99, np.uint8), items, summary)


def draw_all(folder: Path) -> dict[str, bytes]:
    steps = np.arange(1, 20)
    train = pd.DataFrame({"epoch": steps, "loss": 1 / steps, "grad_norm": 2 / steps})
    plots.save_curves(train, train[["epoch", "loss"]], folder / "report" / "curves.png")
    levels = pd.DataFrame({"t_low": [0, 5], "t_high": [4, 9], "log_snr": [3.0, -2.0], "loss": [0.5, 0.1]})
    plots.save_noise_levels(levels, folder / "report" / "noise_levels.png")
    data = packed([(8, 9), (12, 10), (30, 40), (8, 8)])
    data_plots.save_all(data, folder / "data")
    schedule_plots.save_curves(10, folder / "data")
    schedule_plots.save_forward_process(data.images[0], 10, folder / "data" / "forward.png")
    schedule_plots.save_batch(data, np.arange(4), 10, True, folder / "data" / "batch.png")
    return {path.name: path.read_bytes() for path in folder.rglob("*.png")}


def test_settings_of_matplotlib_do_not_change_the_bytes_and_are_left_alone(tmp_path):
    expected = draw_all(tmp_path / "default")
    assert len(expected) == 11
    mine = {"font.size": 17, "axes.facecolor": "black", "savefig.dpi": 50, "savefig.bbox": "tight", "image.cmap": "hot"}
    with matplotlib.rc_context(mine):
        assert draw_all(tmp_path / "mine") == expected
        assert matplotlib.rcParams["font.size"] == 17


def test_no_version_of_matplotlib_is_written(tmp_path):
    for name, content in draw_all(tmp_path).items():
        assert b"Software" not in content, name
        assert b"atplotlib" not in content, name


@pytest.mark.parametrize(
    "sizes", [[(128, 128)] * 4, [(500, 600), (500, 750), (1168, 500), (500, 500)], [(1, 1)] * 4, [(1, 9000)] * 4]
)
def test_sizes_are_histograms_that_count_every_image(sizes):
    figure = data_plots._sizes(packed(sizes))
    figure.draw_without_rendering()
    for axes, values in zip(figure.axes, np.array(sizes).T, strict=True):
        low, high = axes.get_xlim()
        bars = [bar for bar in axes.patches if bar.get_height()]
        for value in set(values.tolist()):
            (bar,) = [bar for bar in bars if bar.get_x() < value < bar.get_x() + bar.get_width()]
            assert low < bar.get_x() and bar.get_x() + bar.get_width() < high
            assert 0.01 * (high - low) < bar.get_width() < 0.2 * (high - low)  # neither a hair nor a wall
        assert sum(bar.get_height() for bar in bars) == len(sizes)


def test_mean_colours_average_each_class_and_leave_empty_ones_white(tmp_path):
    images = packed([(8, 8)] * 4)
    images.images[:3] = [[[(255, 0, 0)]], [[(0, 0, 255)]], [[(0, 0, 255)]]]
    images.summary["class_names"].append("$empty$")
    images.summary["class_counts"].append(0)
    assert data_plots.mean_colours(images).tolist() == [[127.5, 0, 127.5], [49.5, 49.5, 177], [255, 255, 255]]
    data_plots.save_all(images, tmp_path)


def test_the_last_loss_is_a_mean_that_a_short_last_point_hardly_moves(tmp_path):
    """Every step but the last has loss 1 in its second half; the last point is of one step alone."""
    steps = [*range(50, 1001, 50), 1001]
    train = pd.DataFrame({"step": steps, "epoch": steps, "loss": [9.0] * 10 + [1.0] * 10 + [10.0], "grad_norm": 1.0})
    train.to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame(columns=["step", "epoch", "loss"]).to_csv(tmp_path / "heldout.csv", index=False)
    levels = pd.DataFrame({"t_low": [0, 5], "t_high": [4, 9], "log_snr": [3.0, -2.0], "loss": [0.5, 0.1]})
    levels.to_csv(tmp_path / "noise_levels.csv", index=False)
    facts = training_facts({}, tmp_path, tmp_path / "pictures")
    assert facts["standing"] is None
    assert facts["last"] == {"train": pytest.approx((450 * 1 + 10) / 451), "heldout": None, "steps": 451}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"curves.png", "noise_levels.png"}
