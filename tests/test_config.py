from pathlib import Path

import pytest

from ddpm.config import flatten, load_config, parse_config
from ddpm.runtime.errors import InputError


def changed(params: dict, key: str, value: object) -> dict:
    *groups, last = key.split(".")
    group = params
    for name in groups:
        group = group[name]
    group[last] = value
    return params


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("schedule", "bogus", ["schedule", "'bogus'", "linear", "cosine", "sigmoid"]),
        ("epochs", 0, ["epochs", "0", "greater than or equal to 1"]),
        ("epochs", "many", ["epochs", "'many'", "integer"]),
        ("seed", -1, ["seed", "-1"]),
        ("data.image_size", 48, ["data.image_size", "48", "64"]),
        ("data.source", "web", ["data.source", "folder"]),
        ("data.holdout", 1.0, ["data.holdout", "1.0", "0.5"]),
        ("data.splits", [], ["data.splits"]),
        ("data.splits", ["train", "train"], ["data.splits", "twice"]),
        ("model.channels", 100, ["model.channels", "100", "8"]),
        ("model.attention", [15], ["model.attention", "15", "[64, 32, 16, 8]"]),
        ("model.channel_mults", [1] * 7, []),
        ("model.head_channels", 48, ["model.head_channels", "48", "256"]),
        ("train.lr", float("nan"), ["train.lr", "nan"]),
        ("train.lr", -1, ["train.lr", "-1"]),
        ("sample.steps", 2000, ["sample.steps", "2000", "1000"]),
        ("sample.sampler", "euler", ["sample.sampler", "'euler'", "'ddim'", "'dpmpp_2m_sde'"]),
        ("sample.spacing", "leading", ["sample.spacing", "'leading'", "'trailing'", "'logsnr'"]),
        ("sample.variance", "huge", ["sample.variance", "'huge'", "'small'", "'learned'"]),
        ("sample.variance", "learned", ["sample.variance", "diffusion.variance is fixed", "choose small or large"]),
        ("sample.guidance", 1.5, ["sample.guidance", "1.5", "model.conditional: true", "choose 1"]),
        ("sample.guidance", -1, ["sample.guidance", "-1", "greater than or equal to 0"]),
        ("sample.precision", "fp16", ["sample.precision", "'fp16'", "'auto'", "'bf16'"]),
        ("sample.batch_size", "many", ["sample.batch_size", "'many'", "auto", "100000"]),
        ("sample.batch_size", 0, ["sample.batch_size", "0", "auto"]),
        ("sample.batch_size", True, ["sample.batch_size", "True", "auto"]),
        ("train.precision", "fp16", ["train.precision", "'fp16'", "NaN", "use bf16"]),
        ("train.compile", "yes", ["train.compile", "'yes'", "auto, true or false"]),
        ("train.compile", 1, ["train.compile", "1", "auto, true or false"]),
        ("train.accumulate", 129, ["train.accumulate", "129 parts", "at most 128"]),
        ("train.accumulate", 0, ["train.accumulate", "0", "greater than or equal to 1"]),
        ("train.checkpoint_activations", "yes", ["train.checkpoint_activations", "'yes'", "boolean"]),
        ("train.label_dropout", 1.0, ["train.label_dropout", "1.0", "less than 1"]),
        ("diffusion.variance", "none", ["diffusion.variance", "'none'", "'fixed'", "'learned'"]),
        ("train.learning_rate", 1, ["train.learning_rate", "unknown"]),
        ("modle", {}, ["modle", "did you mean model?"]),
        ("train.grad_clp", 1.0, ["train.grad_clp", "did you mean train.grad_clip?"]),
        ("tracking", None, ["tracking"]),
        ("tracking.experiment", " ", ["tracking.experiment"]),
        ("epochs", True, ["epochs", "True", "a number"]),
        ("train.lr", True, ["train.lr", "True", "a number"]),
        ("train.flip", "off", ["train.flip", "'off'", "boolean"]),
        ("model.conditional", 1, ["model.conditional", "1", "boolean"]),
        ("epochs", 10**33, ["epochs", "1000000"]),
        ("train.batch_size", 10**12, ["train.batch_size", "100000"]),
        ("model.channel_mults", [1000000, 1], ["model.channel_mults.0", "64"]),
        ("sample.n", 3, ["sample.n", "3", "4"]),
    ],
)
def test_fault_is_one_sentence_that_names_key_value_and_choices(params, key, value, words):
    if value == [1] * 7:
        params["model"]["attention"] = []
        params["data"]["image_size"] = 8
        words = ["model.channel_mults", "8 pixels", "at most 3"]
    with pytest.raises(InputError) as caught:
        parse_config(changed(params, key, value))
    message = str(caught.value)
    assert message.startswith("params.yaml: ") and "\n" not in message
    assert all(word in message for word in words), message


def test_guidance_needs_a_model_that_was_also_trained_without_classes(params):
    params["model"]["conditional"] = True
    assert parse_config(changed(params, "sample.guidance", 0)).sample.guidance == 0
    with pytest.raises(InputError, match=r"sample\.guidance: found 0, .* train\.label_dropout above 0"):
        parse_config(changed(params, "train.label_dropout", 0.0))


def test_batch_size_may_be_found_by_the_program(params):
    assert parse_config(changed(params, "sample.batch_size", "auto")).sample.batch_size == "auto"


def test_missing_key_is_named(params):
    del params["train"]["lr"]
    with pytest.raises(InputError, match=r"params.yaml: train.lr: missing"):
        parse_config(params)


def test_several_faults_are_told_at_once(params):
    params["epochs"], params["schedule"] = 0, "no"
    with pytest.raises(InputError) as caught:
        parse_config(params)
    assert len(str(caught.value).splitlines()) == 2


def test_number_that_yaml_reads_as_text_is_accepted(params):
    assert parse_config(changed(params, "train.lr", "1e-4")).train.lr == 1e-4


def test_folder_needs_a_path(params):
    with pytest.raises(InputError, match=r"data\.path"):
        parse_config(changed(params, "data.source", "folder"))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "just words"])
def test_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"params\.yaml"):
        load_config(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_config(tmp_path / "params.yaml")


@pytest.mark.parametrize("path", ["params.yaml", "demo/params.yaml"])
def test_committed_parameters_are_valid_and_complete(path):
    config = load_config(path)
    assert set(flatten(config.model_dump())) >= {"schedule", "data.synthetic.count", "tracking.enabled"}


def test_every_committed_parameter_is_explained():
    text = Path("params.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    values = [line for line in lines if not line.split("#")[0].rstrip().endswith(":")]
    assert [line for line in values if "#" not in line] == []
