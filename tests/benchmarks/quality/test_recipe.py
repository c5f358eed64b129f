"""The search for a recipe: what it tries, what goes on, and that a kill changes nothing of it."""

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.changes import changed
from benchmarks.quality import recipe, trial
from benchmarks.quality.recipe_pages import draw, pages, score
from ddpm.config import load_config, parse_config
from ddpm.data.dataset import load_packed
from ddpm.runtime.errors import InputError
from ddpm.training.loop import Training
from stages import fid
from tests.support.bench_workspace import make_workspace, small_config

PARAMS = load_config().model_dump(mode="json")


def row(changes: dict, minutes: float, fid: float | None, **others: object) -> dict:
    """A line of the file, with a made-up score."""
    scores = {
        "fid": {"value": fid, "low": fid - 1, "high": fid + 1},
        "kid": {"value": fid / 1000, "error": 0.001},
    } if fid is not None else {}  # fmt: skip
    about = {"search": "a", "minutes": minutes, "seed": 0, "changes": changes, "peak_memory": 20e9}
    about |= {"machine": {"device": "Made-up GPU", "threads": 1, "torch": "2", "commit": "", "modified": False}}
    about |= {"epochs": 9, "parameters": 1e6, "images_per_second": 5.0, "extractor": "efficientnet_lite0"}
    about |= {"samples": 8, "reference_images": 20, "floor": None, "scores": scores}
    about |= {"params": changed(PARAMS, {"epochs": 9, "sample.n": 8, "tracking.enabled": False, **changes})}
    return about | ({"failed": "it diverged"} if fid is None else {}) | others


GAINS = {
    "train.lr": {"0.0001": 5.0, "0.0004": -5.0, "0.0008": None},
    "diffusion.target": {"v": -3.0},
    "schedule": {"cosine": -2.0},
}


def judge(changes: dict, minutes: float) -> dict:
    """What single changes gain adds up; all others cost 4; a learning rate of 8e-4 diverges; minutes help."""
    gains = [GAINS.get(name, {}).get(str(value), 4.0) for name, value in changes.items()]
    return row(changes, minutes, None if None in gains else 100 - minutes + sum(gains))


def test_the_best_third_goes_on_and_the_best_combination_wins(params):
    measured = []

    def measure(changes, minutes):
        measured.append((changes, minutes))
        return judge(changes, minutes)

    singles = [changes for rows in recipe.space(params) for changes in rows if recipe.is_other(params, changes)]
    count = 60
    rows = recipe.search(params, [5, 10, 20], count, 0, measure)
    by_budget = {minutes: [changes for changes, each in measured if each == minutes] for minutes in (5, 10, 20)}
    # The base, every single change, and all four combinations of the three that help: lr, target and schedule.
    assert by_budget[5][: len(singles) + 1] == [{}, *singles]
    combined = by_budget[5][len(singles) + 1 :]
    helped = [{"schedule": "cosine"}, {"diffusion.target": "v"}, {"train.lr": 4e-4}]
    together = {name: value for changes in helped for name, value in changes.items()}
    assert len(combined) == 4 and together in [dict(sorted(changes.items())) for changes in combined] + combined
    assert all(changes.items() <= together.items() and len(changes) > 1 for changes in combined)
    firsts, seconds = len(by_budget[5]), len(by_budget[10])
    assert (seconds, len(by_budget[20])) == (-(-firsts // 3), -(-seconds // 3))
    ranked = sorted((judge(changes, 5) for changes in by_budget[5]), key=score)
    assert by_budget[10] == [each["changes"] for each in ranked[:seconds]]
    assert rows[0]["changes"] == together and score(rows[0]) == 70


def test_few_trials_are_drawn_by_the_seed_and_a_diverged_one_never_goes_on(params):
    def tried(seed):
        measured = []

        def measure(changes, minutes):
            measured.append(changes)
            return row(changes, minutes, None) if changes else judge(changes, minutes)

        recipe.search(params, [1, 2], 9, seed, measure)
        return measured

    assert tried(0) == tried(0) != tried(1)
    assert len(tried(0)) == 9 + 1 and tried(0)[9] == {}  # the base alone has a score
    with pytest.raises(InputError, match="no trial ended with a score; the first one failed with: it diverged"):
        recipe.search(params, [1], 3, 0, lambda changes, minutes: row(changes, minutes, None))


def test_every_choice_of_the_space_can_be_made(params):
    space = recipe.space(params)
    others = [changes for rows in space for changes in rows if changed(params, changes) != changed(params, {})]
    assert len(others) > 20 and all(recipe.is_other(params, changes) for changes in others)
    assert space[0] == [{"model.channels": width} for width in (64, 96, 160)]


def test_sizes_and_rates_go_by_the_base(params):
    small = changed(params, {"model.channels": 32, "train.batch_size": 16, "train.lr": 1e-3, "train.ema_decay": 0.999})
    choices = [changes for rows in recipe.space(small) for changes in rows]
    for name, values in {
        "model.channels": [16, 24, 40],
        "train.batch_size": [4, 8, 32],
        "train.lr": [5e-4, 2e-3, 4e-3],
        "train.ema_decay": [0.99, 0.995],
    }.items():
        assert [changes[name] for changes in choices if name in changes] == values


@pytest.fixture
def workspace(params, tiny_model, tmp_path, monkeypatch):
    make_workspace(tmp_path, small_config(params, tiny_model), 40, monkeypatch)
    choices = [[{"train.lr": 1e-3}], [{"schedule": "cosine"}], [{"sample.steps": 5}]]
    monkeypatch.setattr(recipe, "space", lambda _: choices)
    # The same speed each time, of which a killed search and another one would find another.
    monkeypatch.setattr(trial, "step_seconds", lambda training: 0.1)
    monkeypatch.setattr(trial, "seconds_of", lambda action, device: 0.5)
    monkeypatch.setattr(trial, "_forget", lambda: None)  # the garbage of all tests
    return tmp_path


OPTIONS = argparse.Namespace(what="search", minutes=[0.02, 0.04], trials=4, samples=8, seed=0, seeds=[0, 1])


def lines():
    rows = recipe.read_lines(recipe.RESULTS / recipe.LINES)
    return [{name: value for name, value in each.items() if name != "train_seconds"} for each in rows]


class Killed(BaseException):
    """Nothing in the program catches it."""


def kill_at(monkeypatch, place, name, number):
    """End all at a certain call of a function, which is named by where it is; returns the calls."""
    calls, real = [], getattr(place, name)

    def call(*arguments):
        calls.append(arguments[-1])
        if len(calls) == number:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(place, name, call)
    return calls


def test_a_search_that_is_killed_and_run_again_ends_with_the_same_lines(workspace, monkeypatch, tmp_path_factory):
    recipe.run(OPTIONS)
    wanted = lines()
    # 1.2 s are 0.5 s for the first step and 7 steps of 8 images, which are an epoch of the 36; 2.4 s are 4 epochs.
    assert [(each["minutes"], each["epochs"]) for each in wanted] == [(0.02, 1)] * 4 + [(0.04, 4)] * 2
    assert {each["seed"] for each in wanted} == {0} and all(each["scores"]["fid"]["value"] > 0 for each in wanted)
    trainings = {str([each["minutes"], each["params"]["schedule"], each["params"]["train"]]) for each in wanted}
    assert len(list(Path(".recipe").iterdir())) == len(trainings) < len(wanted)  # one for all kinds of sampling
    page = Path("reports/benchmarks/recipe.md").read_text()
    assert (
        page.count("| 0.02 |") == 4 and "efficientnet_lite0 features" in page and wanted[0]["machine"]["device"] in page
    )
    assert Path("reports/benchmarks/recipe.png").stat().st_size > 5_000

    for place, name, number in ((Training, "train_step", 9), (fid, "evaluate", 3)):
        make_anew = tmp_path_factory.mktemp("killed")
        for link in ("ddpm", "stages", "dvc.yaml", "data", "params.yaml"):
            (make_anew / link).symlink_to(workspace / link)
        with monkeypatch.context() as patch:
            patch.chdir(make_anew)
            with patch.context() as killing, pytest.raises(Killed):
                kill_at(killing, place, name, number)
                recipe.run(OPTIONS)
            before = lines()
            assert before == wanted[: len(before)] and 0 < len(before) < len(wanted)
            with patch.context() as watching:
                steps = kill_at(watching, Training, "train_step", None)
                recipe.run(OPTIONS)
            assert lines() == wanted
            if place is Training:
                assert steps[0] > 0  # it went on from its checkpoint


def test_the_command_on_the_page_gives_the_parameters_of_the_best_trial(workspace):
    for what in ("search", "seeds"):
        recipe.run(argparse.Namespace(**vars(OPTIONS) | {"what": what, "trials": 2, "minutes": [0.02]}))
    rows = lines()
    assert [each["seed"] for each in rows] == [0, 0, 1]
    page = Path("reports/benchmarks/recipe.md").read_text()
    assert "is the mean over 2 seeds" in page
    words = shlex.split(re.search("dvc exp run.*", page)[0])[3:]
    changes = {name: yaml.safe_load(value) for name, value in (word.split("=") for word in words if word != "-S")}
    best = min(rows, key=score)
    wanted = yaml.safe_load(Path("params.yaml").read_text())
    assert changed(wanted, changes | {"tracking.enabled": False}) == best["params"]


def test_a_trial_that_does_not_fit_is_a_line_that_says_so(workspace, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.\nMore")

    monkeypatch.setattr(trial, "plan", full)
    params = yaml.safe_load(Path("params.yaml").read_text())
    assert trial.trial(params, 1, "here") == {"failed": "CUDA out of memory. Tried to allocate 3 GiB."}
    text = pages([row({"train.lr": 1.0}, 5, None), row({}, 5, 20.0)], PARAMS)
    assert (
        "| 5 | 0 | train.lr=1.0 | – | – | – | – | failed: it diverged | – | – |" in text
        and "20.00 [19.00, 21.00]" in text
    )


def test_the_compilation_is_part_of_the_minutes(workspace):
    config = parse_config(yaml.safe_load(Path("params.yaml").read_text()))
    packed = load_packed(Path("data/processed"))
    epochs = [trial.plan(config, packed, torch.device("cpu"), minutes)["epochs"] for minutes in (0.001, 0.5, 1)]
    # 36 images in batches of 8, 0.1 s a step after 0.5 s for the first.
    assert epochs == [1, int(29.5 / 0.1 * 8 / 36), int(59.5 / 0.1 * 8 / 36)]


def test_the_page_names_the_best_for_a_small_gpu_and_the_figure_the_newest_search(tmp_path):
    rows = [row({}, 20, 30.0, peak_memory=11e9), row({"train.lr": 4e-4}, 20, 25.0), row({"train.lr": 4e-4}, 5, 10.0)]
    text = pages(rows, PARAMS)
    assert "longest budget (20 minutes):\n\n```sh\ndvc exp run -S epochs=9 -S train.lr=0.0004 -S sample.n=8\n" in text
    assert "at most 12 GB of GPU memory (20 minutes):\n\n```sh\ndvc exp run -S epochs=9 -S sample.n=8\n" in text
    draw(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000
    assert "No trial was measured yet" in pages([], PARAMS)
    assert json.dumps(rows)  # what a line holds


def test_the_links_of_a_trial_lead_into_a_repository_that_was_moved(tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new"
    for name in trial.LINKS:
        (old / name).mkdir(parents=True)
        (old / name / "here").touch()
    monkeypatch.chdir(old)
    with trial.workspace({}, 1.0, "here"):
        (Path.cwd() / "dvc.yaml").unlink()
        (Path.cwd() / "dvc.yaml").symlink_to(old / "dvc.yaml")  # as an earlier version left it
    monkeypatch.chdir(old.rename(new))
    with trial.workspace({}, 1.0, "here"):
        assert all((name / "here").samefile(new / name / "here") for name in trial.LINKS)
