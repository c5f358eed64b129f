"""A model in half the size, and the one that generates where none was trained."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm import __main__, load_model
from ddpm.model.model_file import save_half
from ddpm.runtime.errors import InputError
from tests.support.exported import NETWORKS, UNCONDITIONAL, export, write_model


@pytest.mark.parametrize("recipe", NETWORKS.values(), ids=NETWORKS)
def test_half_the_size_generates_the_same_images_but_for_rounding(tmp_path, monkeypatch, recipe):
    folder = write_model(tmp_path / "models", *recipe)
    export(monkeypatch, "--model", folder, "--format", "half", tmp_path / "half")
    export(monkeypatch, "--model", folder, "--format", "half", tmp_path / "half")  # again, over itself
    sizes = [(path / "model.safetensors").stat().st_size for path in (tmp_path / "half", folder)]
    assert sizes[0] / sizes[1] == pytest.approx(0.5, abs=0.1)  # the names of the weights stay as long
    whole, half = (load_model(path, device="cpu") for path in (folder, tmp_path / "half"))
    assert {parameter.dtype for parameter in half.unet.parameters()} == {torch.float32}
    for name, weight in half.unet.state_dict().items():
        exact = whole.unet.state_dict()[name]
        assert torch.equal(weight, exact.half().float()) and torch.allclose(weight, exact, rtol=2**-11, atol=1e-7)
    options = {"steps": 10, "seed": 0, "sampler": "ddim"}
    differences = np.abs(whole.sample(4, **options).astype(int) - half.sample(4, **options).astype(int))
    assert differences.mean() < 0.3 and (differences <= 1).mean() > 0.95


def test_weights_beyond_float16_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"stem\.weight: a weight does not fit into float16"):
        save_half(tmp_path, {"stem.weight": torch.tensor([70_000.0])}, {})
    assert not list(tmp_path.iterdir())


def test_the_card_of_a_model_in_half_tells_how_it_generates_and_of_no_diffusers(tmp_path, monkeypatch):
    for name, conditional in (("plain", False), ("conditional", True)):
        folder = write_model(tmp_path / "models", changes={"attention": [8], "conditional": conditional})
        export(monkeypatch, "--model", folder, "--format", "half", tmp_path / name)
        card = (tmp_path / name / "README.md").read_text()
        assert "diffusers" not in card and "averaged (EMA) weights as float16." in card
        assert ("--class 1" in card) == ('label="1"' in card) == conditional
        code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(tmp_path / name))
        variables = {}
        exec(code.replace("sample(16", "sample(2, steps=2"), variables)
        assert variables["images"].shape == (2, 16, 16, 3)


def test_the_card_of_classes_that_are_numbers_asks_for_one_of_them(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "models", changes={"conditional": True})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"class_names": ["rose", "2021", "2022"]}))
    export(monkeypatch, "--model", folder, "--format", "half", tmp_path / "half")
    card = (tmp_path / "half/README.md").read_text()
    assert "--class 2021 " in card and 'label="2021"' in card
    assert len(load_model(tmp_path / "half", device="cpu").sample(1, steps=2, label="2021")) == 1


def test_an_export_in_half_overwrites_nothing_else(tmp_path, monkeypatch, capsys):
    folder = write_model(tmp_path / "models", *next(iter(UNCONDITIONAL.values())))
    for name in ("README.md", "other.txt"):
        mine = tmp_path / f"folder of {name}" / name
        mine.parent.mkdir()
        mine.write_text("mine")
        for file_format in ("half", "diffusers"):
            with pytest.raises(SystemExit):
                export(monkeypatch, "--model", folder, "--format", file_format, mine.parent)
            assert "holds something else than an exported model" in capsys.readouterr().err
        assert [path.read_text() for path in mine.parent.iterdir()] == ["mine"]


def test_an_export_in_half_does_not_replace_the_trained_model_itself(tmp_path, monkeypatch, capsys):
    folder = write_model(tmp_path / "models", *next(iter(UNCONDITIONAL.values())))
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(SystemExit):
        export(monkeypatch, "--model", folder, "--format", "half", folder)
    assert "holds a model of full precision" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == before


def test_an_export_in_half_does_not_replace_what_cannot_be_read(tmp_path, monkeypatch, capsys):
    folder = write_model(tmp_path / "models", *next(iter(UNCONDITIONAL.values())))
    (tmp_path / "half").mkdir()
    (tmp_path / "half/model.safetensors").write_bytes(b"cut off")
    with pytest.raises(SystemExit):
        export(monkeypatch, "--model", folder, "--format", "half", tmp_path / "half")
    assert "or a damaged one" in capsys.readouterr().err


def test_the_shipped_model_generates_only_where_none_was_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["sample", "--device", "cpu", "--n", "1", "--steps", "2", "--out", "a.npy"]

    def generate(*others):
        monkeypatch.setattr(sys, "argv", ["ddpm", *options, *others])
        __main__.main()
        return np.load("a.npy").shape[1], "Nothing was trained here" in capsys.readouterr().err

    with pytest.raises(SystemExit):
        generate()
    assert "models: no model can be read here" in capsys.readouterr().err
    write_model(Path("shipped"), size=32, changes={"attention": [16]})
    assert generate() == (32, True)
    write_model(Path("models"), size=16)
    assert generate() == (16, False) and generate("--model", "shipped") == (32, False)
    Path("models/model.safetensors").unlink()  # damaged: told, not replaced
    with pytest.raises(SystemExit):
        generate()
    assert "models: no model can be read here" in capsys.readouterr().err
