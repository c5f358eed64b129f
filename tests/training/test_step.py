import copy
import platform
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from ddpm.network.unet import UNet
from ddpm.runtime.checkpoint import Checkpoint
from ddpm.runtime.devices import compiles
from ddpm.runtime.distributed import Group
from ddpm.runtime.errors import InputError
from ddpm.training.step import TrainStep
from tests.support.trainings import Recorder, disks, make, run

CPU = torch.device("cpu")


@pytest.fixture
def seen_labels(monkeypatch):
    """The labels of each call of the network, which itself is left out."""
    seen = []
    monkeypatch.setattr(
        TrainStep,
        "losses",
        lambda self, unet, x0, labels, *rest: seen.append(labels.clone()) or [torch.ones(len(x0), requires_grad=True)],
    )
    return seen


def test_flips_happen_and_can_be_turned_off(tiny_model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        TrainStep, "losses", lambda self, unet, x0, *rest: seen.append(x0) or [x0.new_zeros(1, requires_grad=True)]
    )
    images = np.zeros((64, 16, 16, 3), dtype=np.uint8)
    images[:, :, :8] = 255  # white on the left
    for flip in (True, False):
        seen.clear()
        training = make(tiny_model, images, batch_size=64, flip=flip)
        training.train_step(0)
        mirrored = (seen[0][:, 0, 0, 0] < 0).float().mean().item()
        assert 0.25 < mirrored < 0.75 if flip else mirrored == 0


def test_dropout_differs_between_processes_and_steps(tiny_model, monkeypatch):
    """They draw one batch together, and then activations to drop, each for its own images."""
    monkeypatch.setattr("ddpm.training.step.DistributedDataParallel", lambda network: network)
    dropped = set()
    for rank in range(3):
        optimisation = make(tiny_model, disks(16), batch_size=9, group=Group(rank, 3)).optimisation
        for step in range(3):
            assert len(optimisation._batch(step)[0]) == 3
            dropped.add(torch.rand(1).item())
    assert len(dropped) == 9


def test_labels_are_dropped_at_their_rate_and_at_random(conditional, seen_labels):
    """By seed and step alone, never from the training images themselves, and never from held-out ones."""
    images = disks(16)
    training = make(conditional, images, images, batch_size=16, label_dropout=0.25)
    for step in range(50):
        training.train_step(step)
    dropped = torch.cat(seen_labels) == training.unet.none_class
    # 800 draws; four standard errors
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 800) ** 0.5)
    assert dropped.view(50, 16).unique(dim=0).shape[0] > 40
    assert (torch.cat(seen_labels)[~dropped] < 2).all()

    again = make(conditional, images, images, batch_size=16, label_dropout=0.25)
    torch.manual_seed(12345)
    again.train_step(31)
    assert torch.equal(seen_labels[-1], seen_labels[31])

    assert torch.equal(training.train_set.labels, torch.arange(16) % 2)
    training.heldout_loss()
    assert torch.equal(seen_labels[-1], torch.arange(16) % 2)


def test_label_dropout_changes_nothing_else(tiny_model, conditional, monkeypatch):
    """Neither an unconditional training, nor what is drawn before the labels of a conditional one."""
    images = disks(32)
    histories = [run(make(tiny_model, images, images[:8], label_dropout=share))[0] for share in (0.0, 0.5)]
    assert histories[0] == histories[1]
    seen = []
    monkeypatch.setattr(
        TrainStep, "losses", lambda self, unet, *rest: seen.append(rest) or [torch.ones(1, requires_grad=True)]
    )
    for model in (tiny_model, conditional):
        make(model, images).train_step(3)
    (x0, _, t, _), (other_x0, _, other_t, _) = seen
    assert torch.equal(x0, other_x0) and torch.equal(t, other_t)


def test_bf16_computes_in_bf16_and_keeps_weights_and_loss_in_float32(tiny_model, monkeypatch):
    seen = []
    training = make(tiny_model, disks(16), precision="bf16")
    loss = training.diffusion.loss
    monkeypatch.setattr(
        training.diffusion, "loss", lambda output, *rest: seen.append(output.dtype) or loss(output, *rest)
    )
    values = training.train_step(0)
    assert seen == [torch.bfloat16] and values.dtype == torch.float32 and values.isfinite().all()
    assert {parameter.dtype for parameter in training.unet.parameters()} == {torch.float32}
    exact = make(tiny_model, disks(16), precision="fp32").train_step(0)
    assert values[0].item() == pytest.approx(exact[0].item(), rel=0.02)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_a_batch_taken_in_parts_has_the_same_gradients_and_curves(conditional, accumulate):
    """To the rounding of float32; 16 images in 3 parts are 6, 6 and 4."""
    images = disks(32)
    values = []
    for parts in (1, accumulate):
        training = make(conditional, images, variance="learned", accumulate=parts, grad_clip=1e9)
        torch.manual_seed(0)
        torch.nn.init.normal_(training.unet.head[-1].weight, std=0.1)
        values.append((training.train_step(0), [parameter.grad for parameter in training.unet.parameters()]))
    (whole, gradients), (in_parts, others) = values
    assert torch.allclose(whole, in_parts, rtol=1e-5)
    scale = max(gradient.abs().max() for gradient in gradients)
    for ours, theirs in zip(gradients, others, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * scale)


def test_activations_that_are_computed_again_give_the_same_bytes_and_are_not_kept(tiny_model):
    """With the same dropout in the backward pass as in the forward pass."""
    model = tiny_model.model_copy(update={"dropout": 0.3})
    kept, forgotten, weights = [], [], []
    for sizes, checkpointed in ((kept, False), (forgotten, True)):
        training = make(model, disks(16), checkpoint_activations=checkpointed)
        torch.manual_seed(0)
        torch.nn.init.normal_(training.unet.head[-1].weight, std=0.1)
        with torch.autograd.graph.saved_tensors_hooks(lambda x, to=sizes: to.append(x.numel()) or x, lambda x: x):
            for step in range(2):
                training.train_step(step)
        weights.append(training.unet.state_dict())
    for ours, theirs in zip(weights[0].values(), weights[1].values(), strict=True):
        assert torch.equal(ours, theirs)
    assert sum(forgotten) < 0.5 * sum(kept)


@pytest.mark.parametrize(
    "layouts", [(torch.contiguous_format, torch.channels_last), (torch.channels_last, torch.contiguous_format)]
)
def test_a_state_from_a_device_with_another_layout_goes_on_as_on_its_own(tiny_model, layouts):
    def optimisation(layout):
        training = make(tiny_model, disks(16))
        training.unet.to(memory_format=layout)
        return training.optimisation

    theirs, ours = map(optimisation, layouts)
    for step in range(3):
        theirs(step)
    ours.restore(copy.deepcopy(theirs.state()))
    losses = [[float(taken(step)[0]) for step in range(3, 7)] for taken in (theirs, ours)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++, with which torch.compile compiles for a CPU")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_training_learns_the_same_and_leaves_the_same_names(
    conditional, tmp_path, monkeypatch, capsys, backend
):
    """In parts of 6, 6 and 4 images. The fast backend follows the way of the other up to the generated code."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    images, options = disks(32), {"epochs": 3, "accumulate": 3, "log_every": 1, "checkpoint_activations": True}
    options |= {"augment": 0.3, "min_snr": 5.0}
    plain = make(conditional, images, images[:8], **options)
    history, _ = run(plain)
    torch.compiler.reset()
    compiled = make(conditional, images, images[:8], **options, compile=True)
    compiled_history = compiled.run(Recorder(), Checkpoint(tmp_path))
    for ours, theirs in zip(compiled_history.train, history.train, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert "torch.compile took" in capsys.readouterr().out
    state = Checkpoint(tmp_path).load()
    plain.restore(state)
    assert state["unet"].keys() == plain.unet.state_dict().keys() == state["ema"].keys()
    assert type(compiled.ema.model) is UNet


@pytest.mark.parametrize(
    ("choice", "deterministic", "device", "compilers", "expected"),
    [
        ("auto", False, "cpu", ["g++"], False),
        (True, False, "cpu", ["g++"], True),
        (True, True, "cuda", ["gcc"], True),
        (False, False, "cuda", ["gcc"], False),
        ("auto", False, "cuda", ["gcc"], True),
        ("auto", True, "cuda", ["gcc"], False),
        ("auto", False, "cuda", [], False),
        (True, False, "cpu", [], None),
    ],
)
def test_when_the_network_is_compiled(monkeypatch, capsys, choice, deterministic, device, compilers, expected):
    monkeypatch.setattr(shutil, "which", lambda name: name if name in compilers else None)
    if expected is None:
        with pytest.raises(InputError, match=r"train\.compile: .* finds no g\+\+; install it, or set"):
            compiles(choice, deterministic, torch.device(device))
        return
    assert compiles(choice, deterministic, torch.device(device)) is expected
    said = capsys.readouterr().err
    assert ("goes on without torch.compile" in said) == (not compilers)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such switch")
def test_freed_memory_is_taken_again_without_a_page_fault():
    """Of 80 MB: 20,000 pages, which are otherwise given back and asked for each time."""
    code = """
import resource, torch
from ddpm.runtime.devices import keep_freed_memory
keep_freed_memory()
faults = []
for _ in range(10):
    torch.ones(20_000_000)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-2])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 200
