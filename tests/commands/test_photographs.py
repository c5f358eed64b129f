"""What `python -m ddpm use --photos` prints of a folder, and what it predicts."""

import re

import pytest
from PIL import Image

from ddpm.commands import doctor, photographs
from ddpm.commands.estimate import Cost, planned_steps
from ddpm.config import parse_config


@pytest.fixture
def folder(tmp_path):
    for label, count in (("rose", 4), ("tulip", 2)):
        (tmp_path / label).mkdir()
        for number in range(count):
            kind = "png" if number else "jpg"
            Image.new("RGB", (40, 20 + number), (number, 9, 9)).save(tmp_path / label / f"{number}.{kind}")
    return tmp_path


def test_number_classes_formats_and_sizes_are_those_of_the_folder(folder):
    images, lines = photographs.survey(folder)
    assert images == 6
    assert lines == [
        f"{folder}: 6 images in 2 classes, from 2 (tulip) to 4 (rose)",
        "4 PNG, 2 JPEG; shorter side 20 to 23 pixels, median 21",
    ]


def test_what_is_damaged_or_left_out_is_named_with_its_reason(folder):
    (folder / "rose/damaged.jpg").write_text("no image")
    (folder / "tulip/photo.psd").write_bytes(b"8BPS" + bytes(60))
    (folder / "@eaDir").mkdir()
    images, lines = photographs.survey(folder)
    assert images == 7
    damaged, left_out = lines[2:]
    assert damaged.startswith("1 cannot be opened, such as rose/damaged.jpg; ")
    assert left_out.startswith("2 left out: ") and "PSD" in left_out and "@eaDir" in left_out


def test_of_many_files_evenly_spaced_ones_are_opened(folder, monkeypatch):
    monkeypatch.setattr(photographs, "OPENED", 3)
    _, (_, sizes) = photographs.survey(folder)
    assert sizes.endswith("of 3 of them")
    assert sum(map(int, re.findall(r"(\d) (?:PNG|JPEG)", sizes))) == 3


@pytest.mark.parametrize(
    ("seconds", "words", "shorter"), [(0.5, "about 3 min", False), (40.0, "about 4 h 0 min", True)]
)
def test_the_forecast_is_that_of_as_many_steps_as_the_training_has(params, monkeypatch, seconds, words, shorter):
    params |= {"epochs": 4, "device": "cpu"}
    params["train"]["batch_size"] = 10
    config = parse_config(params)
    monkeypatch.setattr(photographs, "predicted_cost", lambda *_: Cost(seconds, 1e9, 10))
    assert planned_steps(config, 1000) == 360
    sentence = photographs.forecast(config, 1000)
    assert words in sentence and "4 epochs, 360 steps" in sentence
    assert ("python -m ddpm use cpu-1h" in sentence) is shorter


def test_a_step_that_does_not_fit_is_said(params, monkeypatch):
    def too_large(*_):
        raise MemoryError

    monkeypatch.setattr(photographs, "predicted_cost", too_large)
    assert "does not fit into the memory; `python -m ddpm doctor`" in photographs.forecast(
        parse_config(params | {"device": "cpu"}), 10
    )


def test_the_names_of_shorter_recipes_are_known():
    from ddpm.commands.use import names

    assert {name for some in doctor.SHORTER.values() for name in some} <= set(names())
