"""Small trainings on a toy data set."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from ddpm.config import TrainConfig
from ddpm.diffusion.process import Diffusion
from ddpm.network.unet import UNet
from ddpm.runtime.checkpoint import Checkpoint
from ddpm.runtime.devices import memory_format
from ddpm.runtime.distributed import ALONE
from ddpm.training.augment import LABELS
from ddpm.training.batches import ImageSet
from ddpm.training.loop import Training

CPU = torch.device("cpu")


class Recorder:
    def __init__(self):
        self.points = []

    def metrics(self, metrics, step):
        self.points.append((step, metrics))


class BreakOffError(Exception):
    pass


class KeptEvery(Checkpoint):
    """Keeps the state at every `steps`-th step."""

    def __init__(self, folder, steps):
        super().__init__(folder)
        self.steps, self.asked = steps, 0

    def due(self):
        self.asked += 1
        return self.asked % self.steps == 0


def settings(**changes) -> TrainConfig:
    defaults = {
        "batch_size": 16, "lr": 2e-3, "weight_decay": 0.0, "warmup_steps": 10, "grad_clip": 1.0,
        "ema_decay": 0.99, "flip": True, "precision": "fp32", "deterministic": False, "log_every": 10,
        "label_dropout": 0.1,
        "ema_length": 0.0, "lr_decay": 0.0, "timesteps": "uniform",
        "min_snr": 0.0, "augment": 0.0, "accumulate": 1, "checkpoint_activations": False, "compile": False,
    }  # fmt: skip
    return TrainConfig(**defaults | changes)


def disks(count: int, size: int = 16) -> np.ndarray:
    """A toy data set: one bright disk of a random hue on a dark ground, in the upper or lower half."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    images = np.full((count, size, size, 3), 20, dtype=np.uint8)
    for image in images:
        centre = (rng.choice([size // 4, 3 * size // 4]), size // 2)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= (size // 5) ** 2
        image[inside] = rng.choice([(230, 40, 40), (40, 40, 230)])
    return images


def make(
    tiny_model,
    train_images,
    heldout_images=None,
    epochs=2,
    seed=0,
    target="eps",
    variance="fixed",
    group=ALONE,
    levels=1000,
    **changes,
) -> Training:
    """A training; of a conditional model, on two classes that take turns."""
    torch.manual_seed(seed)
    diffusion = Diffusion("cosine", levels, target, variance)
    num_classes = 2 if tiny_model.conditional else None
    side, channels = train_images.shape[1], diffusion.output_channels
    augment_labels = LABELS if changes.get("augment") else 0
    unet = UNet(tiny_model, side, num_classes, channels, tiny_model.conditional, augment_labels)
    unet = unet.to(memory_format=memory_format(CPU))  # as the train stage has it
    heldout = train_images[:0] if heldout_images is None else heldout_images
    return Training(
        unet,
        diffusion,
        settings(**changes),
        ImageSet(CPU, train_images, np.arange(len(train_images)) % 2),
        ImageSet(CPU, heldout, np.arange(len(heldout)) % 2),
        epochs=epochs,
        seed=seed,
        group=group,
    )


def run(training: Training, preview=lambda unet, step: None, preview_every=0):
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder:
        return training.run(recorder, Checkpoint(Path(folder)), (preview_every, preview)), recorder


def die_at(training, number):
    """Let the training break off before step `number`."""
    take = training.train_step

    def train_step(step):
        if step == number:
            raise BreakOffError
        return take(step)

    training.train_step = train_step
