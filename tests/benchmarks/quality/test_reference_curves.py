"""The curves that are kept of a training: from its MLflow run into two files."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import reference_curves
from ddpm.data.dataset import PackedImages
from ddpm.reporting.reference_curves import FILE
from ddpm.runtime.errors import InputError
from ddpm.tracking import runs as tracking

COLUMNS = ["recipe", "images", "heldout_loss", "quick_fid_inception"]


@pytest.fixture
def recorded(tracked, tmp_path, monkeypatch):
    """A training of 3 epochs on 200 images, in MLflow, whose first attempt failed; in an empty folder."""
    config = tracked.model_copy(update={"epochs": 3})
    with pytest.raises(SystemExit), tracking.training_run(config, "the key") as run:
        run.metrics({"heldout/loss": 9.0}, 4)
        raise SystemExit(143)
    with tracking.training_run(config, "the key") as run:
        for step, loss in ((4, 0.25), (8, 0.125)):
            run.metrics({"heldout/loss": loss}, step)
        run.metrics({"quick/fid": 61.234, "quick/kid": 0.1}, 6)
        run.tags({"device": "a device", "data.sha256": "0123", "git.commit": "abcd", "version.torch": "2.0"})
    with tracking.later_stage(config.model_copy(update={"seed": 8}), "the key") as run:
        run.metrics({"inception/fid": 5.0})
    images = PackedImages(np.zeros((200, 8, 8, 3), np.uint8), pd.DataFrame(), {})
    monkeypatch.setattr(reference_curves, "stage_key", lambda *_: "the key")
    monkeypatch.setattr(reference_curves, "load_packed", lambda _: images)
    monkeypatch.setattr(PackedImages, "split", lambda *_: (np.arange(180), np.arange(20)))
    monkeypatch.setattr(reference_curves, "FILE", tmp_path / FILE)
    return config


def test_loss_and_quick_scores_are_kept_by_images_seen(recorded):
    reference_curves.keep("mine", "my images", recorded)
    assert reference_curves.FILE.read_text() == (
        f"{','.join(COLUMNS)}\nmine,512,0.25,\nmine,768,,61.23\nmine,1024,0.125,\n"  # 128 images in a step
    )
    entry = json.loads(reference_curves.FILE.with_suffix(".json").read_text())["mine"]
    assert {key: entry[key] for key in ("data", "device", "commit", "torch", "seed", "data_sha256")} == {
        "data": "my images", "device": "a device", "commit": "abcd", "torch": "2.0", "seed": 0, "data_sha256": "0123",
    }  # fmt: skip
    # 3 epochs of 180 images are 5 steps of 128.
    assert entry["images"] == 640 and entry["recipe"]["train"]["lr"] == recorded.train.lr


def test_other_recipes_are_kept_and_an_older_curve_is_replaced(recorded):
    for name in ("other", "mine", "mine"):
        reference_curves.keep(name, "my images", recorded)
    assert pd.read_csv(reference_curves.FILE)["recipe"].tolist() == ["mine"] * 3 + ["other"] * 3
    assert json.loads(reference_curves.FILE.with_suffix(".json").read_text()).keys() == {"mine", "other"}


def test_without_such_a_training_it_says_what_to_do(recorded, monkeypatch):
    monkeypatch.setattr(reference_curves, "stage_key", lambda *_: "another key")
    with pytest.raises(InputError, match="holds no training with these parameters and this code; `dvc repro train`"):
        reference_curves.keep("mine", "my images", recorded)
    assert not reference_curves.FILE.exists()


def test_before_the_first_held_out_loss_there_is_nothing_to_keep(tracked, recorded):
    config = tracked.model_copy(update={"tracking": tracked.tracking.model_copy(update={"experiment": "no loss yet"})})
    with tracking.training_run(config, "the key"):
        pass
    with pytest.raises(InputError, match="has no held-out loss yet"):
        reference_curves.keep("mine", "my images", config)
