"""The forecast for a GPU that is not here, against independent counts, and what is said of every card of the table."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

from ddpm.commands.calibration import Calibration
from ddpm.commands.estimate import random_images
from ddpm.commands.foresee import fitting, room, sampling_need, training_need
from ddpm.commands.gpus import GPUS, find_gpu
from ddpm.config import parse_config
from ddpm.network.unet import UNet, count_parameters
from tests.support.fake_cuda import needs_fakes
from tests.support.gpu_work import full_step

CLASSES = 102


def changed(config, **train):
    return config.model_copy(update={"train": config.train.model_copy(update=train)})


def packed(config):
    return random_images(config, 2 * CLASSES, CLASSES)


@pytest.mark.parametrize(("precision", "checkpointed"), [("bf16", False), ("bf16", True), ("fp32", False)])
def test_its_memory_is_that_of_pytorchs_tracker(config, precision, checkpointed):
    """Without dropout, whose mask a CPU keeps in a larger type."""
    smaller = {"dropout": 0.0, "channel_mults": [1, 2], "attention": [32], "blocks": 1}
    config = config.model_copy(update={"model": config.model.model_copy(update=smaller)})
    config = changed(config, batch_size=8, precision=precision, checkpoint_activations=checkpointed)
    with FakeTensorMode():
        unet = UNet(config.model, 64).train()
        unet.checkpoint_activations = checkpointed
        x, t = torch.empty(8, 3, 64, 64), torch.zeros(8, dtype=torch.int64)
        tracker = MemTracker()
        tracker.track_external(unet)
        with tracker:
            with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
                answer = unet(x, t)
            answer.float().square().mean().backward()
        peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
        parameters = count_parameters(unet)
    # Moments and average are what a step holds besides.
    assert training_need(config, packed(config), 0).memory == pytest.approx(peak + 12 * parameters, rel=0.01)


@needs_fakes
@pytest.mark.parametrize("changes", [{}, {"checkpoint_activations": True}], ids=str)
def test_its_memory_is_that_of_whole_steps_on_fake_cuda_tensors(config, changes):
    whole = full_step(**{f"train__{key}": value for key, value in changes.items()})
    assert training_need(changed(config, **changes), packed(config), 256).memory == pytest.approx(whole, rel=0.08)


@pytest.mark.parametrize("patch", [1, 2])
def test_its_operations_are_those_of_pytorchs_counter(config, patch):
    model = config.model.model_copy(update={"patch": patch, "attention": [16, 8]})
    config = changed(config.model_copy(update={"model": model}), batch_size=8)
    with torch.device("meta"):
        unet, x, t = UNet(model, 64), torch.empty(8, 3, 64, 64), torch.zeros(8, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        unet(x, t).sum().backward()
    # Attention's kernel computes a product again in the backward pass, which is not in the plain one.
    assert training_need(config, packed(config), 0).flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet.eval()(x, t)
    assert sampling_need(config, packed(config), 8).flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_parts_are_doubled_until_they_fit_and_then_activations_are_forgotten(tiny):
    tiny["train"]["batch_size"] = 4
    config = parse_config(tiny)
    needs = [training_need(changed(config, accumulate=parts), packed(config), 0).memory for parts in (1, 2, 4)]
    assert needs[0] > needs[1] > needs[2]

    def found(memory):
        gpu = find_gpu(None, (memory + 0.6e9) / 0.95 / 2**30, 10, 100)
        assert room(gpu, Calibration()) == pytest.approx(memory)
        result = fitting(config, packed(config), 0, gpu, Calibration())
        return result and (result[0].train.accumulate, result[0].train.checkpoint_activations)

    assert found(needs[0] * 1.001) == (1, False)
    assert found(needs[1] * 1.001) == (2, False)
    assert found(needs[2] * 0.9999)[1] is True
    assert found(1000) is None


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_each_card_of_the_table_gets_a_verdict_that_is_computed(gpu, tiny, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    Path("params.yaml").write_text(yaml.safe_dump(tiny))
    code, printed = command("doctor", "--gpu", f"nvidia geforce {gpu.name.lower()}")
    assert code == 0 and printed.startswith(gpu.name)
    assert "computed, not measured" in printed.splitlines()[0]
    assert re.search(r"memory +fits: [\d.]+ of [\d.]+ GB", printed)
    assert re.search(r"training +.* to .* for 700 epochs, 39,375 steps; computed, not measured", printed)
    assert re.search(r"use +params.yaml as it is", printed) and "Assumed: " in printed


def test_the_full_recipe_on_12_gb_is_that_of_its_name(command):
    code, printed = command("doctor", "--gpu", "RTX 3080 Ti")
    assert code == 0 and "as it is, the training does not fit: 13." in printed
    assert "fits: with train.accumulate 2: 7." in printed
    assert re.search(r"use +python -m ddpm use gpu-12gb", printed)


def test_a_gpu_that_is_too_small_is_a_problem_with_a_remedy(command):
    code, printed = command("doctor", "--gpu-memory", 1, "--gpu-tflops", 5, "--gpu-bandwidth", 100)
    remedy = "lower model.channels, or set model.patch"
    assert code == 1 and f"not even one image at a time fits into this GPU; {remedy}" in printed
