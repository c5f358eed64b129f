"""The benchmark of levers: which trainings it asks for, and the page that it writes."""

import argparse
import json

import pytest

from benchmarks.quality import levers
from ddpm.config import load_config
from ddpm.runtime.errors import InputError

OPTIONS = argparse.Namespace(what="run", minutes=1.0, samples=40, seeds=[0, 1], only=["plain", "without patches"])


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The trainings that were asked for, each answered with scores; in an empty folder with params.yaml."""
    params = load_config()
    calls = []

    def trial(wanted, minutes, place, rate):
        if len(calls) == 3 and not levers.FILE.with_name("killed").exists():
            levers.FILE.with_name("killed").touch()
            raise KeyboardInterrupt
        calls.append((wanted["model"]["patch"], wanted["seed"], minutes, rate))
        score = {"value": 100.0 + len(calls), "low": 90.0, "high": 120.0}
        return {
            "scores": {"fid": score, "kid": score, "coverage": score},
            "samples": 40, "reference_images": 50, "extractor": "efficientnet_lite0", "epochs": 3,
        }  # fmt: skip

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(levers, "load_config", lambda: params)
    monkeypatch.setattr(levers, "base_params", lambda _samples: params.model_dump(mode="json"))
    monkeypatch.setattr(levers, "check_data", lambda _config: None)
    monkeypatch.setattr(levers, "checksum", lambda _file: "0" * 64)
    monkeypatch.setattr(levers, "rates", lambda *_: {"without patches": 8.0, "plain": 24.0})
    monkeypatch.setitem(levers.LEVERS, "plain", {"model.patch": 2, "model.attention": [16, 8]})
    monkeypatch.setattr(levers, "trial", trial)
    return calls


def test_each_lever_is_trained_with_each_seed_at_the_speed_of_its_network_and_none_twice(asked):
    with pytest.raises(KeyboardInterrupt):
        levers.run(OPTIONS)
    levers.run(OPTIONS)
    assert asked == [(2, 0, 1.0, 24.0), (1, 0, 1.0, 8.0), (2, 1, 1.0, 24.0), (1, 1, 1.0, 8.0)]
    assert len(json.loads(levers.FILE.read_text())["rows"]) == 4


def test_the_page_has_a_row_for_each(asked, capsys):
    with pytest.raises(KeyboardInterrupt):
        levers.run(OPTIONS)
    levers.run(argparse.Namespace(**vars(OPTIONS) | {"what": "table"}))
    text = capsys.readouterr().out
    assert "| plain | 24.0 | 3 | 0 | 101 [90, 120] | 101 [90, 120] | 101 [90, 120] |" in text
    assert "| without patches | 8.0 | 3 | 0 |" in text and text.count("| plain |") == 2


def test_without_a_measurement_there_is_no_page(asked):
    with pytest.raises(InputError, match=r"levers\.json: no such file; `python -m benchmarks\.quality\.levers run`"):
        levers.run(argparse.Namespace(**vars(OPTIONS) | {"what": "table"}))


def test_every_lever_is_a_change_of_the_parameters_that_they_allow():
    from benchmarks.changes import changed_config

    base = changed_config(load_config(), {"model.patch": 2, "model.head_channels": 32, "schedule": "cosine"})
    for name, changes in levers.LEVERS.items():
        assert (changed_config(base, changes) == base) == (name == "plain")
