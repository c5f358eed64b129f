"""That trainings which share a processor, and networks on patches, are measured as the tables say."""

import json

import pytest

from benchmarks.speed import patches, sharing
from ddpm.config import parse_config


@pytest.fixture
def results(tmp_path, monkeypatch):
    for module in (patches, sharing):
        monkeypatch.setattr(module, "FILE", tmp_path / f"{module.__name__}.json")
    return tmp_path


def test_ratios_are_taken_within_a_round_and_each_case_is_measured_as_named(results, monkeypatch, capsys):
    asked = []

    def rate(waiting, case, seconds):
        asked.append((waiting, case, seconds))
        speed = 10 if len(asked) <= 6 else 20  # the whole machine is twice as fast in the second round
        return speed * {"alone": 1.0, "two": 0.9, "beside": 0.5}[case] * {"brief": 1.0, "default": 0.5}[waiting]

    monkeypatch.setattr(sharing, "rate", rate)
    sharing.measure(2, 3.0)
    assert len(asked) == 12 and set(asked) == {(w, c, 3.0) for w in sharing.WAITING for c in sharing.CASES}
    printed = capsys.readouterr().out
    assert "0.90 – **0.90** – 0.90" in printed and "0.50 – **0.50** – 0.50" in printed
    assert "2.00 – **2.00** – 2.00 of the speed" in printed
    assert printed.endswith(sharing.table(json.loads(sharing.FILE.read_text())) + "\n")


def test_patches_take_turns_and_are_compared_with_pixels(results, params, tiny_model, monkeypatch, capsys):
    tiny = {"model.channels": 8, "model.channel_mults": [1, 2], "model.head_channels": 8, "model.attention": []}
    monkeypatch.setattr(patches, "NETWORK", patches.NETWORK | tiny | {"data.image_size": 16, "train.batch_size": 2})
    patches.measure(parse_config(params), 2, 1)
    content = json.loads(patches.FILE.read_text())
    assert [row["patch"] for row in content["rows"]] == [1, 2, 4]
    assert all(len(row["rates"]) == 2 and min(row["rates"]) > 0 for row in content["rows"])
    operations = [row["flops"] for row in content["rows"]]
    assert operations[0] > operations[1] > operations[2]
    assert capsys.readouterr().out.endswith(patches.table(content) + "\n")
