"""What the stages do on a GPU, done on fake CUDA tensors by a tiny network."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from torch import nn
from torch.utils._pytree import tree_map_only

from ddpm.commands.estimate import random_images
from ddpm.config import Config, parse_config
from ddpm.evaluation import features
from ddpm.evaluation.manifold import Manifold, precision_recall
from ddpm.evaluation.memorisation import memorisation
from ddpm.evaluation.scores import fid, kid_blocks
from ddpm.model.trained import DiffusionModel
from ddpm.training.batches import place_images
from ddpm.training.loop import MEASURED_AT_ONCE, Training
from ddpm.training.noise_levels import loss_by_noise_level
from ddpm.training.setup import describe_model, prepare
from tests.support.fake_cuda import CUDA, fake_cuda
from tests.support.gpu_watch import Watch

IMAGES, CLASSES = 40, 5
TINY = {
    "data__image_size": 16,
    "diffusion__timesteps": 40,
    "sample__steps": 10,
    "model__channels": 16,
    "model__channel_mults": [1, 2],
    "model__blocks": 1,
    "model__attention": [8],
    "model__head_channels": 16,
    "train__batch_size": 8,
    "train__compile": False,
}


def configured(**changes: Any) -> Config:
    """The committed parameters with changes; __ stands for a dot."""
    params = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        *groups, last = key.split("__")
        group = params
        for name in groups:
            group = group[name]
        group[last] = value
    return parse_config(params)


def built(device: torch.device = CUDA, **changes: Any) -> Training:
    """A training of the tiny network."""
    config = configured(**TINY | changes)
    return prepare(config, random_images(config, IMAGES, CLASSES), device)


def model(**changes: Any) -> DiffusionModel:
    """Its average, ready to sample."""
    config = configured(**TINY | changes)
    packed = random_images(config, IMAGES, CLASSES)
    training = prepare(config, packed, CUDA)
    return DiffusionModel(training.ema.model, describe_model(config, packed, training))


def steps(*, stream: bool = False, restore: bool = False, **changes: Any) -> Watch:
    """Two training steps, as the loop takes them; the first may set things up, the second must not wait."""
    with fake_cuda() as watch:
        training = built(**changes)
        if stream:
            packed = random_images(configured(**TINY), IMAGES, CLASSES)
            rows = np.arange(IMAGES)
            # A user's device has no number; the training's own has.
            sets = place_images(torch.device("cuda"), packed.images, rows % CLASSES, rows, stream=True)
            (training.optimisation._train_set,) = sets
        for step in range(2):
            if step == 1 and restore:
                state = tree_map_only(torch.Tensor, lambda tensor: tensor.cpu(), training.state())  # as from a file
                training = built(**changes)
                training.restore(state)
            watch.waits.clear()
            training.progress.sums += (values := training.train_step(step))
            training._watch.look(step + 1, values)
            assert values.is_cuda and values.dtype == torch.float32
        assert not watch.waits, watch.waits
    return watch


def full_step(count: int = 2, **changes: object) -> int:
    """Bytes at the peak of a step of the committed parameters, with the moments of AdamW."""
    config = configured(train__compile=False, **changes)
    with fake_cuda() as watch:
        training: Training = prepare(config, random_images(config, 256, 102), CUDA)
        for step in range(count):  # the first one makes the moments when its activations are gone
            training.train_step(step)
        assert torch.cuda.max_memory_allocated() == watch.peak
    return watch.peak


def sampling(steps: int, **options: Any) -> None:
    """Guided samples of given classes, so many steps of which none may wait."""
    with fake_cuda() as watch:
        guided = model(model__conditional=True, diffusion__variance="learned")
        classes = guided.config["class_names"][:2]
        trajectory = guided.trajectory(range(2), steps=steps, guidance=2.0, label=classes, **options)
        next(trajectory)  # noise and classes
        watch.waits.clear()
        for x in trajectory:
            assert x.is_cuda and x.dtype == torch.float32
        assert not watch.waits, watch.waits


def finished() -> list[str]:
    """Copies to the host while images are sampled, from noise to pixels, of classes that are drawn."""
    with fake_cuda() as watch:
        drawn = model(model__conditional=True)
        watch.waits.clear()
        assert drawn.sample(3, steps=1).shape == (3, 16, 16, 3)
    return [wait for wait in watch.waits if wait.startswith("copy to the host")]


def measuring(**changes: Any) -> Watch:
    """The held-out loss, and the loss by noise level."""
    with fake_cuda() as watch:
        training = built(data__holdout=0.3, diffusion__timesteps=4, sample__steps=4, **changes)
        watch.waits.clear()
        training.heldout_loss()
        loss_by_noise_level(training.ema.model, training.diffusion, training.heldout_set, MEASURED_AT_ONCE)
    return watch


def seeing(name: str) -> None:
    """Features of images by an extractor whose weights do not matter."""
    with fake_cuda(), mock.patch.object(features, "_read_weights", lambda *_: {}):
        with mock.patch.object(nn.Module, "load_state_dict", lambda *_, **__: None):
            extractor = features.load_extractor(name, Path("none"), CUDA)
        images = np.zeros((5, 16, 16, 3), dtype=np.uint8)
        found = features.extract(images, extractor, 2)
    assert found.shape == (5, {"inception": 2048, "efficientnet_lite0": 1280}[name]) and found.dtype == np.float32


def scoring(images: int, width: int) -> None:
    """All scores of features on the GPU."""
    with fake_cuda():
        real, fake, heldout = (torch.randn(images, width, device=CUDA) for _ in range(3))
        fid(real, fake)
        assert kid_blocks(real, fake).dtype == np.float64
        precision_recall(Manifold(real), Manifold(fake))
        memorisation(real, heldout, fake, shown=3)
