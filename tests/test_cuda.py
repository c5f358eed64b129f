"""What only a GPU can show: the promises of docs/reproducibility.md there, and its agreement with the CPU."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.batches import ImageSet
from ddpm.config import TrainConfig
from ddpm.devices import make_deterministic
from ddpm.diffusion import Diffusion
from ddpm.model import DiffusionModel
from ddpm.noise import ImageNoise
from ddpm.training import Training
from ddpm.unet import UNet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
STEPS = 30


@pytest.fixture
def deterministic() -> Iterator[None]:
    make_deterministic()
    yield
    torch.use_deterministic_algorithms(False)


def make(model, precision: str) -> Training:
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    config = TrainConfig(
        batch_size=16, lr=1e-3, weight_decay=0.0, warmup_steps=5, grad_clip=1.0, ema_decay=0.99, flip=True,
        precision=precision, deterministic=True, log_every=10, label_dropout=0.1,
        accumulate=1, checkpoint_activations=False,
    )  # fmt: skip
    train_set = ImageSet(CUDA, images, np.arange(64) % 5)
    unet = UNet(model, 16, num_classes=5).to(CUDA)
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
    straight = train(make(tiny_model, precision))
    assert_same(straight, train(make(tiny_model, precision)))

    broken = make(tiny_model, precision)
    for step in range(11):
        broken.train_step(step)
    broken.progress.steps = 11
    resumed = make(tiny_model, precision)
    resumed.restore(broken.state())
    assert_same(straight, train(resumed, first=11))


def test_noise_is_that_of_the_cpu(tiny_model):
    there, here = (ImageNoise(5, range(3, 9), (3, 16, 16), device) for device in (CUDA, CPU))
    for _ in range(3):
        torch.testing.assert_close(there().cpu(), here(), atol=1e-5, rtol=0)
    torch.testing.assert_close(there.uniform().cpu(), here.uniform(), atol=0, rtol=0)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde"])
def test_samples_are_those_of_the_cpu(tiny_model, sampler):
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
    torch.backends.cudnn.allow_tf32 = False
    there = DiffusionModel(unet.to(CUDA), config).sample(8, steps=10, sampler=sampler, precision="fp32")
    assert np.abs(here.astype(int) - there).max() <= 2
