"""What only a GPU can show: the promises of docs/reproducibility.md there, and its agreement with the CPU."""

import os
import socket
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ddpm.config import TrainConfig
from ddpm.diffusion.noise import ImageNoise
from ddpm.diffusion.process import Diffusion
from ddpm.model.trained import DiffusionModel
from ddpm.network.unet import UNet
from ddpm.runtime.devices import compiles, make_deterministic
from ddpm.runtime.distributed import process_group
from ddpm.runtime.errors import InputError
from ddpm.training.augment import LABELS
from ddpm.training.batches import ImageSet, place_images
from ddpm.training.loop import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
# PyTorch looks for it once in a process, when it first multiplies matrices, maybe in a test that is not deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
STEPS = 30


@pytest.fixture
def deterministic() -> Iterator[None]:
    make_deterministic()
    yield
    torch.use_deterministic_algorithms(False)


def make(model, precision: str, **changes: object) -> Training:
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("needs a GPU with bfloat16")
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    options = {
        "batch_size": 16, "lr": 1e-3, "weight_decay": 0.0, "warmup_steps": 5, "grad_clip": 1.0, "ema_decay": 0.99,
        "flip": True, "precision": precision, "deterministic": True, "log_every": 10, "label_dropout": 0.1,
        "min_snr": 0.0, "augment": 0.0, "accumulate": 1, "checkpoint_activations": False, "compile": False,
    }  # fmt: skip
    config = TrainConfig(**options | changes)
    train_set = ImageSet(CUDA, images, np.arange(64) % 5)
    unet = UNet(model, 16, num_classes=5, augment_labels=LABELS if config.augment else 0).to(CUDA)
    return Training(unet, Diffusion("cosine", 1000, "eps", device=CUDA), config, train_set, train_set, epochs=8, seed=0)


def train(training: Training, first: int = 0) -> dict[str, Tensor]:
    for step in range(first, STEPS):
        training.train_step(step)
    return training.ema.model.state_dict()


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_deterministic_trainings_give_the_same_bits_and_resume_exactly(deterministic, tiny_model, precision):
    make_told = partial(make, tiny_model, precision, augment=0.3, min_snr=5.0)
    straight = train(make_told())
    assert_same(straight, train(make_told()))

    broken = make_told()
    for step in range(11):
        broken.train_step(step)
    broken.progress.steps = 11
    resumed = make_told()
    resumed.restore(broken.state())
    assert_same(straight, train(resumed, first=11))


@pytest.mark.parametrize("stream", [False, True])
def test_no_step_waits_for_the_gpu(tiny_model, stream):
    """PyTorch raises at each call that would; the first step may, because it sets things up."""
    training = make(tiny_model, "bf16", augment=0.3, min_snr=5.0)
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    (training.optimisation._train_set,) = place_images(CUDA, images, np.arange(64) % 5, np.arange(64), stream=stream)
    training.train_step(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 5):
            training.train_step(step)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_streamed_images_give_the_same_bits(deterministic, tiny_model):
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    weights = []
    for stream in (False, True):
        training = make(tiny_model, "fp32")
        sets = place_images(CUDA, images, np.arange(64) % 5, np.arange(64), stream=stream)
        (training.optimisation._train_set,) = sets
        weights.append(train(training))
    assert_same(*weights)


def test_a_compiled_training_learns_the_same(tiny_model):
    """In bf16, whose rounding compiled code places elsewhere."""
    try:
        compiles(True, False, CUDA)
    except InputError as error:
        pytest.skip(str(error))
    losses = []
    for choice in (False, True):
        training = make(tiny_model, "bf16", compile=choice)
        losses.append(torch.stack([training.train_step(step)[0] for step in range(STEPS)]))
        assert not any("_orig_mod" in name for name in training.state()["unet"])
    torch.testing.assert_close(losses[0], losses[1], rtol=0.02, atol=0.02)


def test_activations_computed_again_give_the_same_bits_in_less_memory(deterministic, tiny_model):
    model = tiny_model.model_copy(update={"channels": 64, "dropout": 0.2})
    make(model, "fp32").train_step(0)  # or the first of the two would pay for the workspaces of cuBLAS
    weights, peaks = [], []
    for checkpointed in (False, True):
        training = make(model, "fp32", checkpoint_activations=checkpointed)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()  # the first training may not have been cleared away
        weights.append(train(training))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert_same(*weights)
    assert peaks[1] < peaks[0]


def test_one_process_of_a_group_trains_as_one_alone(deterministic, tiny_model, monkeypatch):
    """By NCCL, in a group of one: all of the machinery that a single GPU can show."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    alone = train(make(tiny_model, "fp32"))
    with process_group(CUDA):
        training = make(tiny_model, "fp32")
        values, contents = torch.ones(2, device=CUDA), [{"a": 1}]
        torch.distributed.all_reduce(values)
        torch.distributed.broadcast_object_list(contents)  # which a Group of one would leave out
        assert values.tolist() == [1, 1] and contents == [{"a": 1}]
        training.optimisation._network = DistributedDataParallel(training.unet)
        assert_same(alone, train(training))


def test_noise_is_that_of_the_cpu(tiny_model):
    there, here = (ImageNoise(5, range(3, 9), (3, 16, 16), device) for device in (CUDA, CPU))
    for _ in range(3):
        torch.testing.assert_close(there().cpu(), here(), atol=1e-5, rtol=0)
    torch.testing.assert_close(there.uniform().cpu(), here.uniform(), atol=0, rtol=0)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde"])
def test_samples_are_those_of_the_cpu(tiny_model, sampler, monkeypatch):
    for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
        monkeypatch.setattr(backend, "allow_tf32", False)
    config = {
        "schedule": "cosine",
        "diffusion": {"timesteps": 1000, "target": "eps"},
        "image_size": 16,
        "class_names": ["flower"],
    }
    torch.manual_seed(0)
    unet = UNet(tiny_model, 16)
    torch.nn.init.normal_(unet.head[-1].weight, std=0.05)
    here = DiffusionModel(unet, config).sample(8, steps=10, sampler=sampler, precision="fp32")
    there = DiffusionModel(unet.to(CUDA), config).sample(8, steps=10, sampler=sampler, precision="fp32")
    assert np.abs(here.astype(int) - there).max() <= 2
