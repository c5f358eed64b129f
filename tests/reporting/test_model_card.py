"""What the card of an exported model says, and that its snippet runs."""

import hashlib
import json

import pytest
import torch
import yaml

from tests.support.exported import NETWORKS, export, write_model


@pytest.fixture
def card(tmp_path, monkeypatch):
    """Front matter and text of the card of a model, exported in a repository with the given scores."""

    def make(scores=None, options=(), **recipe):
        monkeypatch.chdir(tmp_path)
        write_model(tmp_path / "models", **recipe)
        if scores is not None:
            (tmp_path / "reports/scores").mkdir(parents=True)
            (tmp_path / "reports/scores/scores.json").write_text(json.dumps(scores))
        export(monkeypatch, "exported", *options)
        empty, front, text = (tmp_path / "exported/README.md").read_text().split("---\n", 2)
        assert empty == ""
        return yaml.safe_load(front), text

    return make


def test_the_card_tells_data_recipe_and_limits(card, tmp_path):
    front, text = card(changes={"attention": [8]}, variance="fixed")
    assert front["license"] == "other" and front["library_name"] == "diffusers" and front["datasets"] == ["flowers102"]
    assert {"ddpm", "unconditional-image-generation"} <= set(front["tags"])
    for fact in (
        "splits train, val |",
        "7370 for training, 819 held out, scaled to 16×16",
        "39.6 M parameters: 8 channels × [1, 2], 1 residual block per resolution, attention at [8]",
        "linear schedule, 1000 steps, target eps, fixed variance",
        "7 epochs, 406 steps of 128 images, AdamW with learning rate 0.0002",
        "decay 0.9999",
        hashlib.sha256((tmp_path / "models/model.safetensors").read_bytes()).hexdigest(),
        "research data",
        "Memorisation was not examined",
        "other sizes were not trained",
        "Not scored",
    ):
        assert fact in text, fact


@pytest.mark.parametrize(
    ("patch", "told"), [(None, "attention at [8] |"), (1, "attention at [8] |"), (2, "[8], on patches of 2×2 pixels |")]
)
def test_the_card_tells_on_which_patches_the_network_works(tmp_path, monkeypatch, patch, told):
    config = write_model(tmp_path / "models", changes={"patch": patch or 1}) / "config.json"
    content = json.loads(config.read_text())
    if patch is None:  # of an earlier version
        del content["model"]["patch"]
    config.write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    export(monkeypatch, "exported", "--format", "half")
    assert told in (tmp_path / "exported/README.md").read_text()


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"min_snr": 0.0, "augment": 0.0}, "with mirroring |"),
        ({"min_snr": 5.0, "augment": 0.12}, "with mirroring, augmentation 0.12, Min-SNR-5 loss weight |"),
        ({"lr_decay": 0.0}, "with learning rate 0.0002, dropout"),
        ({"lr_decay": 0.15}, "with learning rate 0.0002 that falls to 0 in the last 15 %, dropout"),
        ({"ema_length": 0.0}, "exponential average with decay 0.9999; sha256"),
        ({"ema_length": 0.05}, "power-function average over 5 % of the training; sha256"),
    ],
)
def test_the_card_tells_the_tricks_of_the_training(tmp_path, monkeypatch, train, told):
    config = write_model(tmp_path / "models") / "config.json"
    content = json.loads(config.read_text())
    content["training"]["train"] |= train
    config.write_text(json.dumps(content))
    export(monkeypatch, "--model", tmp_path / "models", tmp_path / "exported")
    assert told in (tmp_path / "exported/README.md").read_text()


@pytest.mark.parametrize(("source", "licence"), [("synthetic", "mit"), ("folder", "other")])
def test_the_card_of_other_data_names_no_flowers(card, source, licence):
    front, text = card(source=source)
    assert front["license"] == licence and "datasets" not in front
    assert "Flowers-102" not in text and "photographs of flowers" not in text


SCORES = {
    "extractor": "inception",
    "samples": 10000,
    "reference": "all",
    "reference_images": 8189,
    "sampling": {"sampler": "ddim", "steps": 100, "seed": 0},
    "scores": {
        "fid": {"value": 12.345, "low": 12.1, "high": 12.6},
        "kid": {"value": 0.0067, "low": 0.0061, "high": 0.0073},
        "precision": {"value": 0.61, "low": 0.6, "high": 0.62},
        "recall": {"value": 0.41, "low": 0.4, "high": 0.42},
        "memorisation": {"value": 1.01, "low": 0.9, "high": 1.1},
    },
    "floor": {
        "images": 4094,
        "reference_images": 4095,
        "splits": 5,
        "scores": {
            name: {"model": 14.5, "real": 5.1, "real_low": 5.0, "real_high": 5.2}
            for name in ("fid", "kid", "precision", "recall")
        },
    },
}


def test_the_card_says_of_the_data_what_it_is_told(card, tmp_path):
    write_model(tmp_path / "models")
    sha256 = hashlib.sha256((tmp_path / "models/model.safetensors").read_bytes()).hexdigest()
    torch.manual_seed(0)  # the same weights again
    told = ("--data", "9 photographs: roses,\nof one garden")
    front, text = card(SCORES | {"model_sha256": sha256}, options=told, source="folder")
    (found,) = front["model-index"][0]["results"]
    assert found["dataset"] == {"name": "9 photographs: roses, of one garden", "type": "folder"}
    assert "| source | 9 photographs: roses, of one garden |" in text and "private" not in text


def test_only_scores_of_these_very_weights_are_shown(card, tmp_path):
    write_model(tmp_path / "models")
    sha256 = hashlib.sha256((tmp_path / "models/model.safetensors").read_bytes()).hexdigest()
    torch.manual_seed(0)  # the same weights again
    _, text = card(SCORES | {"model_sha256": sha256})
    assert "| FID (lower is better) | **12.35** | 12.10 to 12.60 | 14.50 | 5.10 (5.00 to 5.20) |\n" in text
    assert "| KID × 1000 (lower is better) | **6.70** | 6.10 to 7.30 |" in text
    assert "> Not yet photographs: FID 14.5, where as many photographs score 5.1." in text
    assert "10000 samples (sampler ddim, steps 100, seed 0) against 8189 real images" in text
    assert "Not scored" not in text and "Memorisation was not examined" not in text
    assert "float16" not in text


def test_a_card_in_half_says_that_the_scores_are_of_the_weights_before(card, tmp_path, monkeypatch):
    write_model(tmp_path / "models")
    sha256 = hashlib.sha256((tmp_path / "models/model.safetensors").read_bytes()).hexdigest()
    torch.manual_seed(0)
    card(SCORES | {"model_sha256": sha256})
    export(monkeypatch, "--format", "half", "half")
    text = (tmp_path / "half/README.md").read_text()
    assert "**12.35**" in text and "float32 weights, before they were rounded" in text


@pytest.mark.parametrize("identity", [{"model_sha256": "0" * 64}, {}])
def test_scores_of_another_model_or_of_nobody_are_not_shown(card, identity):
    _, text = card(SCORES | identity)
    assert "Not scored" in text and "12.3" not in text


@pytest.mark.parametrize("recipe", NETWORKS)
@torch.inference_mode()
def test_the_snippet_on_the_card_runs(card, monkeypatch, recipe):
    schedule, target, variance, size, changes = NETWORKS[recipe]
    _, text = card(schedule=schedule, target=target, variance=variance, size=size, changes=changes)
    snippet = text.split("```python\n")[1].split("```")[0]
    found = {}
    exec(snippet.replace("path/to/this/folder", "exported").replace("1000", "10"), found)
    assert [image.size for image in found["images"]] == [(size, size)] * 4


@pytest.mark.parametrize("file_format", ["diffusers", "half"])
def test_a_model_of_unknown_training_is_refused(tmp_path, monkeypatch, capsys, file_format):
    config = write_model(tmp_path / "models") / "config.json"
    content = json.loads(config.read_text())
    del content["training"]
    config.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as ended:
        export(monkeypatch, "--model", tmp_path / "models", "--format", file_format, tmp_path / "exported")
    assert ended.value.code == 2 and "does not state how the model was trained" in capsys.readouterr().err
