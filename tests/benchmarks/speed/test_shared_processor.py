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

    def rate(spins, case, seconds):
        asked.append((spins, case, seconds))
        speed = 10 if len(asked) <= 9 else 20  # the whole machine is twice as fast in the second round
        return speed * {"alone": 1.0, "two": 0.9, "beside": 0.5}[case] * {1000: 1.0, 5000: 0.8, 300_000: 0.5}[spins]

    monkeypatch.setattr(sharing, "rate", rate)
    sharing.measure(2, 3.0)
    assert len(asked) == 18 and set(asked) == {(n, c, 3.0) for n in sharing.COUNTS for c in sharing.CASES}
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines() if "00 " in line and line.startswith("| ")]
    shares = [[cell.strip(" |") for cell in row[2::2]] for row in rows]
    assert shares[0] == [f"{value:.2f} – **{value:.2f}** – {value:.2f}" for value in (2.0, 1.8, 1.0)]
    assert shares[1] == [f"{value:.2f} – **{value:.2f}** – {value:.2f}" for value in (1.6, 1.44, 0.8)]
    assert shares[2] == ["1", "0.90 – **0.90** – 0.90", "0.50 – **0.50** – 0.50"]
    assert "5,000 (this project)" in rows[1][0]
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
