"""That whole recipes are compared on equal terms; their figures are no matter of a test."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.loops import Workload
from benchmarks.quality import peers, published, recipe
from benchmarks.quality.peers_pages import LABELS, minutes_to, page, reference_of
from benchmarks.quality.published import PUBLISHED, RECIPES
from benchmarks.quality.trial import digest
from ddpm.config import load_config
from ddpm.data.dataset import load_packed, split_holdout
from ddpm.model.trained import load_model
from ddpm.runtime.errors import InputError, RunError
from ddpm.runtime.paths import PROCESSED
from tests.support import ROOT
from tests.support.bench_workspace import make_workspace, small_config
from tests.support.exported import export, write_model

IN_A_PROCESS = peers.in_a_process
SIZED = "diffusers_3_levels"
NAMES = [*PUBLISHED, SIZED]
OPTIONS = argparse.Namespace(what="run", minutes=0.01, moments=2, samples=8, batch_size=5, only=NAMES)


@pytest.fixture
def workspace(params, tiny_model, tmp_path, monkeypatch):
    make_workspace(tmp_path, small_config(params, tiny_model), 120, monkeypatch)
    monkeypatch.setattr(published, "WIDTHS", (32, 32))
    monkeypatch.setattr(published, "ATTENTION_AT", 1)
    monkeypatch.setattr(published, "DIM", 8)
    monkeypatch.setattr(published, "CALLS", 3)
    small = {"model.channels": 8, "model.channel_mults": [1, 2], "model.head_channels": 8, "sample.steps": 3}
    monkeypatch.setattr(published, "PLAIN", published.PLAIN | small)
    monkeypatch.setattr(peers, "TIMED_SECONDS", 0.05)
    monkeypatch.setattr("denoising_diffusion_pytorch.denoising_diffusion_pytorch.cpu_count", lambda: 0)
    # In this process, which saves the start of four.
    monkeypatch.setattr(peers, "in_a_process", lambda name, folder, options: peers.measure(name, folder, options))
    return tmp_path


def work_of(root) -> Workload:
    config = load_config()
    peers.lay_out(config, root / "pngs")
    return Workload(config, PROCESSED, root / "pngs", root / "exported", parameters=0)


def test_all_are_measured_on_the_same_photographs_and_none_twice(workspace, monkeypatch):
    peers.run(OPTIONS)
    found = json.loads(Path("reports/benchmarks/peers.json").read_text())
    assert list(found["contenders"]) == NAMES and found["minutes"] == 0.01
    for row in found["contenders"].values():
        assert [moment["reference_images"] for moment in row["moments"]] == [120, 120]
        first, last = row["moments"]
        # On a machine that is slower than when it was measured, the minutes end before the steps.
        assert 0 < first["minutes"] <= last["minutes"] and 0 < first["steps"] <= last["steps"] <= row["steps"]
        assert row["machine"]["torch"] == torch.__version__ and row["extractor"] == "efficientnet_lite0"
    text = Path("reports/benchmarks/peers.md").read_text()
    assert all(f"| {label} |" in text for label in map(LABELS.get, NAMES)) and "efficientnet_lite0 features" in text
    assert found["contenders"]["ours"]["machine"]["device"] in text
    assert Path("reports/benchmarks/peers.png").stat().st_size > 5_000
    (pngs,) = Path(".peers").glob("*/pngs")
    packed = load_packed(PROCESSED)
    rows, _ = split_holdout(packed.items["id"].tolist(), 0.1)  # ours keeps the others for its held-out loss
    pictures = [np.array(Image.open(path)) for path in sorted(pngs.iterdir())]
    assert np.array_equal(np.stack(pictures), packed.images[rows])

    def never(*_):
        raise AssertionError("measured twice")

    monkeypatch.setattr(peers, "measure", never)
    peers.run(OPTIONS)
    assert json.loads(Path("reports/benchmarks/peers.json").read_text()) == found


class Killed(BaseException):
    """Nothing in the program catches it."""


def test_killed_while_sampling_it_goes_on_with_the_images_that_are_there(workspace, monkeypatch):
    generated, real = [], published.Ours.generate

    def generate(self, weights, first, count):
        generated.append(first)
        if len(generated) == 4:
            raise Killed
        return real(self, weights, first, count)

    monkeypatch.setattr(published.Ours, "generate", generate)
    only = argparse.Namespace(**vars(OPTIONS) | {"only": ["ours"]})
    with pytest.raises(Killed):
        peers.run(only)
    monkeypatch.setattr(peers, "train", lambda *_: pytest.fail("trained again"))
    peers.run(only)
    assert generated == [0, 5, 0, 5, 5]
    (row,) = json.loads(Path("reports/benchmarks/peers.json").read_text())["contenders"].values()
    assert len(row["moments"]) == 2


@pytest.mark.parametrize("name", NAMES)
def test_images_depend_on_the_weights_and_their_numbers_alone(workspace, name):
    work = work_of(workspace)
    one, two = RECIPES[name](work, 20), RECIPES[name](work, 20)
    one.run(3)
    weights = {key: tensor.clone() for key, tensor in one.weights().items()}
    one.run(3)
    images = one.generate(weights, 0, 4)
    assert images.shape == (4, 16, 16, 3) and images.dtype == np.uint8 and images.std() > 0
    assert np.array_equal(images, two.generate(weights, 0, 4))
    assert not np.array_equal(images, two.generate(weights, 4, 4))


def test_those_who_average_generate_with_the_average_and_the_plain_one_with_its_last_weights(workspace):
    work = work_of(workspace)
    averages = {}
    for name, last in {
        "ours": lambda ours: ours.training.unet.state_dict(),
        "plain": lambda ours: ours.training.unet.state_dict(),
        "diffusers": lambda ours: ours.unet.state_dict(),
    }.items():
        contender = RECIPES[name](work, 20)
        contender.run(3)
        raw = last(contender)
        averages[name] = any(not torch.equal(raw[key], tensor) for key, tensor in contender.weights().items())
    assert averages == {"ours": True, "plain": False, "diffusers": True}


def test_the_learning_rate_of_diffusers_falls_to_zero_within_the_minutes(workspace, monkeypatch):
    rates, real = [], torch.optim.AdamW.step

    def step(self, *arguments, **options):
        rates.append(self.param_groups[0]["lr"])
        return real(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    monkeypatch.setattr("benchmarks.loops.WARMUP", 5)
    steps = 20  # not a whole number of epochs, which have 7 steps
    RECIPES["diffusers"](work_of(workspace), steps).run(steps)
    assert max(rates) == pytest.approx(1e-4) and rates[-1] < 0.05e-4 and rates[5:] == sorted(rates[5:], reverse=True)


def test_the_minutes_are_those_of_the_first_score_that_reaches_the_last_of_diffusers(workspace):
    def row(*fids):
        scores = [
            {"fid": {"value": fid, "low": fid, "high": fid}, "kid": {"value": 0.1, "error": 0.1}}
            | {name: {"value": 0.5} for name in ("precision", "recall", "coverage")}
            for fid in fids
        ]
        moments = [
            {"minutes": 5.0 * (number + 1), "scores": each, "floor": None, "reference_images": 9}
            for number, each in enumerate(scores)
        ]
        machine = {"device": "Made-up GPU", "threads": 1, "torch": "2", "commit": "", "modified": False}
        about = {"machine": machine, "extractor": "inception", "batch": 1, "calls": 9}
        return about | {"moments": moments, "parameters": 1e6, "images_per_second": 1.0}

    rows = {"ours": row(60, 41, 30), "diffusers": row(90, 70, 41), "plain": row(99, 80, 42)}
    assert [minutes_to(each, 41) for each in rows.values()] == [10.0, 15.0, None]
    lines = page({"contenders": rows, "minutes": 15, "samples": 100}).splitlines()
    ends = [line.split(" | ")[-1].rstrip(" |") for line in lines if line.startswith("| ") and "params" not in line[2:4]]
    assert ends[-3:] == ["10", "15", "not reached"]


@pytest.mark.parametrize(
    ("fids", "reference"),
    [({"ours": 1}, None), ({"ours": 1, SIZED: 9}, SIZED), ({"diffusers": 7, SIZED: 9, "plain": 2}, "diffusers")],
)
def test_the_others_are_to_reach_the_best_that_was_made_of_diffusers(fids, reference):
    rows = {name: {"moments": [{"scores": {"fid": {"value": fid}}}]} for name, fid in fids.items()}
    assert reference_of(rows) == reference


def test_a_network_of_diffusers_is_sampled_as_ours_is(workspace, monkeypatch):
    from diffusers import UNet2DModel

    ours = load_model(write_model(workspace / "model", "linear"), device="cpu")
    export(monkeypatch, "--model", workspace / "model", "--format", "diffusers", workspace / "exported")
    contender = RECIPES[SIZED](work_of(workspace), 20)
    assert contender.batch == 8 and contender.unet.config.block_out_channels == (32, 64, 128)
    assert contender.unet.config.down_block_types == ["AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]  # of 16 pixels
    contender.unet = UNet2DModel.from_pretrained(workspace / "exported", subfolder="unet")
    images = contender.generate(contender.unet.state_dict(), 2, 3)
    options = load_config().sample.model_dump(exclude={"n", "batch_size"})
    wanted = ours.sample(3, first=2, **options, seed=0)
    assert np.abs(images.astype(int) - wanted).max() <= 1  # of 255: their arithmetic is float32 too
    assert contender.calls == options["steps"]


def test_a_contender_has_a_process_of_its_own_and_a_failure_is_told(workspace, monkeypatch, capfd):
    monkeypatch.setattr(peers, "in_a_process", IN_A_PROCESS)
    for name in ("dvc", "mlflow"):
        (workspace / "blocked" / name).mkdir(parents=True)
        (workspace / "blocked" / name / "__init__.py").write_text("raise ImportError('this machine has none')")
    monkeypatch.setenv("PYTHONPATH", f"{workspace / 'blocked'}:{ROOT}")
    only = argparse.Namespace(**vars(OPTIONS) | {"only": ["plain", "ours"]})
    folder = Path(".peers", digest(peers.settings(load_config(), only)), "plain")
    folder.mkdir(parents=True)
    (folder / "training.json").write_text('{"steps": "none", "moments": []}')
    with pytest.raises(RunError, match="plain: this contender failed, see above; leave it out with --only ours"):
        peers.run(only)
    assert "TypeError: " in (told := capfd.readouterr().err) and "has none" not in told


def test_what_is_missing_is_told_before_minutes_are_spent(workspace):
    Path("data/reference/reference.json").unlink()
    for run, options in ((peers.run, OPTIONS), (recipe.run, argparse.Namespace(what="search"))):
        with pytest.raises(InputError, match=r"reference\.json: cannot be read"):
            run(options)
    assert not Path(".peers").exists() and not Path(".recipe").exists()
