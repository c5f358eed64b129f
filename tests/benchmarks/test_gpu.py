"""What is run first on a real GPU: its measurements on fake CUDA tensors, the order of its parts, its calibration."""

import argparse
import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu
from benchmarks.speed import variants
from benchmarks.speed.variants import CHANNELS_LAST, SAMPLING, STEPS, sampling, training_step
from ddpm.commands.calibration import Calibration, calibration
from ddpm.commands.gpus import known_gpu
from ddpm.runtime.errors import InputError, RunError
from tests.support.bench_workspace import make_workspace, small_config
from tests.support.fake_cuda import fake_cuda, needs_fakes
from tests.support.gpu_work import TINY, configured
from tests.support.tiny_repository import call, make_repository

OPTIONS = argparse.Namespace(only=list(gpu.PARTS), minutes=0.01, samples=8, steps=1, rounds=1)


@pytest.fixture
def compiled(monkeypatch):
    """The modes in which something was to be compiled, and is not; what is timed takes one step at a time."""
    modes = []
    monkeypatch.setattr(variants, "CHUNKS", 2)
    monkeypatch.setattr(variants, "CHUNK_SECONDS", 0)
    monkeypatch.setattr(torch, "compile", lambda what, mode=None, **_: modes.append(mode) or what)
    return modes


@needs_fakes
@pytest.mark.parametrize("form", STEPS)
def test_a_step_is_timed_on_a_gpu_in_each_form(form, compiled):
    with fake_cuda():
        found = training_step(configured(**TINY | {"device": "cuda", "model__conditional": True}), form)
    assert found["step_seconds"]["min"] > 0 and found["reserved"] >= found["memory"] > 1e5
    assert bool(compiled) is (form != "not compiled")


@needs_fakes
def test_channels_last_reaches_the_convolutions(compiled, monkeypatch):
    layouts = []
    true = torch.nn.functional.conv2d

    def conv2d(image, weight, *others, **named):
        layouts.append(weight.is_contiguous(memory_format=torch.channels_last))
        return true(image, weight, *others, **named)

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    with fake_cuda():
        training_step(configured(**TINY | {"device": "cuda"}), CHANNELS_LAST)
    assert layouts and all(layouts)


@needs_fakes
@pytest.mark.parametrize("form", SAMPLING)
def test_sampling_is_timed_on_a_gpu_in_each_form(form, compiled):
    with fake_cuda():
        found = sampling(configured(**TINY | {"device": "cuda"}), form, 4)
    assert found["images_per_second"] > 0 and found["reserved"] >= found["memory"] > 1e4
    assert compiled == ([] if form == "not compiled" else [SAMPLING[form]])


@pytest.mark.parametrize("measure", [lambda c: training_step(c, "not compiled"), lambda c: sampling(c, "compiled", 8)])
def test_what_does_not_fit_is_said_and_the_rest_goes_on(measure, compiled, monkeypatch):
    def full(*_args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("benchmarks.speed.variants.prepare", full)
    assert measure(configured(**TINY | {"device": "cpu"})) == {"failed": "8 images do not fit into the memory"}


@pytest.fixture
def workspace(tmp_path, params, tiny_model, monkeypatch):
    """A workspace with features, where every part answers without work; returns the parts that were asked."""
    make_workspace(tmp_path, small_config(params, tiny_model), 40, monkeypatch)
    monkeypatch.setattr(gpu, "check_data", lambda _config: None)
    asked, ends = [], {"peers": [RunError("diffusers: this contender failed")], "sampling": [KeyboardInterrupt()]}

    def answer(name):
        def part(config, _options):
            asked.append(name)
            if ends.get(name):
                raise ends[name].pop()
            return ANSWERS[name]

        return part

    monkeypatch.setattr(gpu, "PARTS", {name: answer(name) for name in gpu.PARTS})
    return asked


FORM = {
    "step_seconds": {"min": 0.04, "median": 0.05, "max": 0.06},
    "first_seconds": 60.0,
    "memory": 9e9,
    "reserved": 10e9,
}
SPREAD = {"min": 1.0, "median": 2.0, "max": 3.0}
ANSWERS = {
    "tests": {"passed": 20, "skipped": 1, "failed_tests": ["test_bits"]},
    "step": {
        "forms": {"not compiled": FORM, "compiled": FORM, CHANNELS_LAST: {"failed": "8 images do not fit"}},
        "batch": 8, "peak_flops": 1e14,
        "computed": {
            "flops": 1e12, "memory": 9e9, "parameters": 1e6, "compiled_seconds": 0.025, "eager_seconds": 0.04,
        },
    },
    "peers": {
        "contenders": {
            name: {"images_per_second": SPREAD, "ours_over_this": SPREAD, "peak_memory": 1e9}
            for name in ("ours", "diffusers")
        },
        "batch": 8,
    },
    "sampling": {"rows": [{"form": "compiled", "size": 64, "images_per_second": 7.0, "warm_up_seconds": 1.0,
                           "memory": 1e9, "reserved": 2e9}], "sampler": "ddim", "steps": 3},
    "training": {
        "epochs": 3, "images_per_second": 9.0, "parameters": 1e6, "train_seconds": 60.0, "peak_memory": 1e9,
        "extractor": "efficientnet_lite0", "samples": 8, "reference_images": 40, "floor": None,
        "scores": {"fid": {"value": 100.0, "low": 90.0, "high": 110.0}},
    },
}  # fmt: skip


def test_a_kill_and_a_failed_part_cost_that_part_alone(workspace, capsys):
    with pytest.raises(KeyboardInterrupt):
        gpu.run(OPTIONS)
    assert workspace == ["tests", "step", "peers", "sampling"]
    assert "Failed: diffusers: this contender failed" in gpu.PAGE.read_text()
    workspace.clear()
    gpu.run(OPTIONS)
    assert workspace == ["peers", "sampling", "training"]
    workspace.clear()
    gpu.run(OPTIONS)
    assert workspace == []
    gpu.run(argparse.Namespace(**vars(OPTIONS) | {"minutes": 5.0}))
    assert workspace == ["training"]
    page = capsys.readouterr().out
    assert "20 tests passed, 1 failed, 1 skipped." in page and "- failed: `test_bits`" in page
    assert "| compiled | 40.0 – **50.0** – 60.0 | 160.0 | 20% | 9.00 GB | 10.00 GB | 60.0 s |" in page
    assert "| fid | 100 | 90 to 110 | – |" in page and "| compiled | 64 | 7.00 | 1.00 GB | 1.0 s |" in page
    assert json.loads(gpu.FILE.read_text())["calibration"]["compiled"] == pytest.approx(0.3)


def test_what_nobody_has_foreseen_costs_its_form_alone(monkeypatch, capsys):
    def alone(_action, _config, form, *_size):
        if form == "compiled":
            raise RuntimeError("InductorError: no such instruction\non this GPU")
        return FORM | {"images_per_second": 7.0}

    monkeypatch.setattr(gpu, "alone", alone)
    config = configured(**TINY | {"device": "cpu"})
    forms = gpu.step(config, OPTIONS)["forms"]
    assert {form: row.get("failed") for form, row in forms.items()} == {
        "not compiled": None, "compiled": "InductorError: no such instruction", CHANNELS_LAST: None,
    }  # fmt: skip
    failed = [row["form"] for row in gpu.sample(config, OPTIONS)["rows"] if "failed" in row]
    assert failed and set(failed) == {"compiled"}
    assert "Traceback" in capsys.readouterr().err  # for whoever has to mend it


def test_another_machine_or_commit_begins_anew(workspace, monkeypatch, capsys):
    gpu.run(argparse.Namespace(**vars(OPTIONS) | {"only": ["tests"]}))
    true = gpu.machine
    monkeypatch.setattr(gpu, "machine", lambda device: true(device) | {"commit": "1" * 40})
    gpu.run(argparse.Namespace(**vars(OPTIONS) | {"only": ["tests"]}))
    assert workspace == ["tests", "tests"] and "all parts begin anew" in capsys.readouterr().out


def test_a_gpu_calibrates_the_doctor_by_what_it_did(tmp_path):
    here = {"device": "NVIDIA H100", "threads": 1, "torch": "2.15", "commit": "a" * 40, "modified": False}
    found = Calibration(**gpu.calibrated(ANSWERS["step"], here))
    # Compiled 0.05 s, where 60 % of the peak would take 0.025 s; not compiled 0.05 s where 0.04 s were computed.
    assert (found.compiled, found.eager, found.fragments) == pytest.approx((0.3, 1.25, 0.1))
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps({"calibration": gpu.calibrated(ANSWERS["step"], here)}))
    assert calibration(file) == found and "NVIDIA H100" in found.gpu and "commit aaaaaaa" in found.gpu
    assert gpu.calibrated(ANSWERS["step"] | {"computed": {"flops": 1.0}}, here) is None
    broken = ANSWERS["step"]["forms"] | {"compiled": {"failed": "no compiler"}}
    assert gpu.calibrated(ANSWERS["step"] | {"forms": broken}, here) is None


def test_without_a_measurement_the_doctor_assumes_and_a_broken_one_is_refused(tmp_path):
    assert calibration(tmp_path / "none.json") == Calibration()
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps({"calibration": None}))
    assert calibration(file) == Calibration()
    for content in ("{", "[]", '{"calibration": {"compiled": -1}}', '{"calibration": {"speed": 1}}'):
        file.write_text(content)
        with pytest.raises(
            InputError, match=r"gpu.json: not as `python -m benchmarks.gpu` writes it; .* measure again"
        ):
            calibration(file)


def test_the_doctor_goes_by_what_was_measured(tmp_path, monkeypatch, command):
    monkeypatch.setattr("ddpm.commands.gpu_forecast.calibration", lambda: Calibration(0.3, 1.0, 0.05, "an H100"))
    code, printed = command("doctor", "--gpu", "H100")
    assert code == 0 and "As measured on an H100: " in printed and "of 30% of the peak, compiled" in printed


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 3080 Ti", "RTX 3080 Ti"), ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("NVIDIA GeForce RTX 3080", None), ("NVIDIA H100 NVL", None),
        ("NVIDIA GeForce RTX 3060 Ti", None), ("Tesla V100-SXM2-16GB", None),
    ],
)  # fmt: skip
def test_a_gpu_is_known_by_the_name_that_cuda_gives_it_and_its_kin_is_not(name, found):
    assert getattr(known_gpu(name), "name", None) == found


def test_the_tests_of_a_gpu_are_counted_by_their_ends(tmp_path, monkeypatch):
    cases = tmp_path / "test_three.py"
    cases.write_text("import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('no')\n")
    monkeypatch.setattr(gpu, "TESTS", cases)
    assert gpu.tests(SimpleNamespace(), OPTIONS) == {"passed": 1, "skipped": 1, "failed_tests": ["test_b"]}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_of_it_on_a_cpu(tmp_path):
    """Compiles five times, so it takes minutes, on a busy machine many; with diffusers where that is installed."""
    one_size = {"sample": {"batch_size": gpu.SMALL_BATCH}}
    root = make_repository(tmp_path / "repository", tracking={"enabled": False}, **one_size)
    options = ["--minutes", "0.02", "--samples", "8", "--steps", "1", "--rounds", "1"]
    printed = call(root, "python", "-m", "benchmarks.gpu", *options)
    assert "Failed" not in printed and "Not measured yet" not in printed, printed
    content = json.loads((root / gpu.FILE).read_text())
    assert set(content["parts"]) == set(gpu.PARTS) and content["calibration"] is None
    assert content["parts"]["tests"]["skipped"] > 10 and content["parts"]["training"]["scores"]["fid"]["value"] > 0
