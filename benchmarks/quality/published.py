"""Whole recipes that `benchmarks.quality.peers` compares: ours and those of others, each with its network and sampler.

Each is built in a process of its own, because the libraries change settings of the whole process.
"""

import contextlib
import copy
import io
import math
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.changes import Changes, changed_config
from benchmarks.loops import Workload, train_unconditional, trainer
from ddpm.config import Config
from ddpm.data.dataset import load_packed
from ddpm.model.trained import DiffusionModel
from ddpm.network.unet import count_parameters
from ddpm.runtime.devices import choose_device
from ddpm.training.setup import describe_model, prepare, split

Weights = dict[str, Tensor]

# diffusers, examples/unconditional_image_generation: the network that train_unconditional.py builds, and the batch of
# the command that its README gives for Flowers-102, without mixed precision.
WIDTHS, ATTENTION_AT, DIFFUSERS_BATCH = (128, 128, 256, 256, 512, 512), 4, 16
# Networks for a processor, of which none is published; with one block per resolution, where the script has two.
SIZES = {
    "diffusers_3_levels": (32, 64, 128),
    "diffusers_4_levels": (32, 64, 128, 128),
    "diffusers_wide": (64, 128, 128),
}
ATTENTION_SIDE = 16  # pixels, as in the other networks at 64×64
# denoising-diffusion-pytorch: the width of its README's U-Net; all else is left to its defaults.
DIM, TRAINER_BATCH = 64, 16
CALLS = 1000  # of the network per image: what both sample with unless it is set
# A plain U-Net as tutorials have it; its loop and its residual blocks are ours. What params.yaml has beyond that, such
# as augmentation, is to be turned off here.
PLAIN: Changes = {
    "schedule": "linear",
    "model.channels": 64,
    "model.channel_mults": [1, 2, 4, 8],
    "model.blocks": 1,
    "model.attention": [],
    "model.dropout": 0.0,
    "model.conditional": False,
    "diffusion.timesteps": 1000,
    "diffusion.target": "eps",
    "diffusion.variance": "fixed",
    "train.lr": 2e-4,
    "train.warmup_steps": 0,
    "train.ema_decay": 0.0,
    "train.min_snr": 0.0,
    "train.augment": 0.0,
    "train.compile": False,
    "train.precision": "fp32",
    "sample.sampler": "ddpm",
    "sample.steps": 1000,
    "sample.variance": "large",
    "sample.guidance": 1.0,
    "sample.precision": "fp32",
}


class Recipe(Protocol):
    """A training and the sampler that belongs to it.

    batch: images per step.
    parameters: of the network.
    calls: of the network per image that is sampled.
    """

    batch: int
    parameters: int
    calls: int

    def run(self, steps: int) -> object:
        """Take so many further steps."""

    def weights(self) -> Weights:
        """Those that its authors would sample with now: averaged, where they average."""

    def generate(self, weights: Weights, first: int, count: int) -> np.ndarray:
        """Generate the images from number `first` on: (N, H, W, 3) uint8, the same for the same weights and numbers."""


class Ours:
    """params.yaml: training loop, EMA, and the sampler of its `sample`."""

    def __init__(self, work: Workload, steps: int) -> None:
        config, packed = work.config, load_packed(work.packed)
        self.batch = config.train.batch_size
        rows, _ = split(config, packed)
        epochs = max(1, math.ceil(steps * self.batch / len(rows)))
        config = config.model_copy(update={"epochs": epochs})
        training = prepare(config, packed, choose_device(config.device))
        self.description = describe_model(config, packed, training)
        self.training, self.config, self.done = training, config, 0
        self.parameters, self.calls = count_parameters(training.unet), config.sample.steps

    def run(self, steps: int) -> None:
        """See `Recipe`."""
        for _ in range(steps):
            self.training.train_step(self.done)
            self.done += 1

    def weights(self) -> Weights:
        """See `Recipe`."""
        return self.training.ema.model.state_dict()

    def generate(self, weights: Weights, first: int, count: int) -> np.ndarray:
        """See `Recipe`."""
        self.training.ema.model.load_state_dict(weights)
        return by_our_sampler(self.training.ema.model, self.description, self.config, first, count)


class Plain(Ours):
    """A plain U-Net: no attention, no average of the weights, linear schedule, 1000 steps of Ho et al. 2020."""

    def __init__(self, work: Workload, steps: int) -> None:
        config = changed_config(work.config, PLAIN)
        super().__init__(replace(work, config=config), steps)


class Diffusers:
    """The Flowers-102 command of diffusers' train_unconditional.py, sampled as the script does, by DDPMPipeline.

    Its learning rate falls over as many epochs as there is time for, instead of the 100 of the command: cut off in the
    middle it would never have become small. This is in its favour.
    """

    def __init__(self, work: Workload, steps: int) -> None:
        attends = [level == ATTENTION_AT for level in range(len(WIDTHS))]
        self.prepare(work, steps, WIDTHS, attends, blocks=2, batch=DIFFUSERS_BATCH, fast=False)
        self.calls = CALLS

    def prepare(
        self,
        work: Workload,
        steps: int,
        widths: tuple[int, ...],
        attends: list[bool],
        blocks: int,
        batch: int,
        fast: bool,
    ) -> None:
        """Build a network of these widths, and the training that takes so many steps; see `train_unconditional`."""
        from diffusers import UNet2DModel

        torch.manual_seed(work.config.seed)
        self.unet = UNet2DModel(
            sample_size=work.config.data.image_size,
            in_channels=3,
            out_channels=3,
            layers_per_block=blocks,
            block_out_channels=widths,
            down_block_types=["AttnDownBlock2D" if here else "DownBlock2D" for here in attends],
            up_block_types=["AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)],
        )
        self.parameters, self.batch = count_parameters(self.unet), batch
        epochs = steps / math.ceil(sum(1 for _ in work.pngs.iterdir()) / batch)
        changes = {"train.batch_size": batch, "train.accumulate": 1}
        work = replace(work, config=changed_config(work.config, changes))
        self.run, self.ema = train_unconditional(work, self.unet, epochs, fast)

    def weights(self) -> Weights:
        """See `Recipe`."""
        averaged = copy.deepcopy(self.unet)
        self.ema.copy_to(averaged.parameters())
        return averaged.state_dict()

    def generate(self, weights: Weights, first: int, count: int) -> np.ndarray:
        """See `Recipe`."""
        from diffusers import DDPMPipeline, DDPMScheduler

        self.unet.load_state_dict(weights)
        scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
        pipeline = DDPMPipeline(self.unet.eval(), scheduler)
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator(self.unet.device).manual_seed(first)
        images = pipeline(count, generator=generator, num_inference_steps=self.calls, output_type="np").images
        return (images * 255).round().astype("uint8")


class SizedDiffusers(Diffusers):
    """Their script with its fastest switches and the batch of params.yaml, for a network that a processor can train.

    What differs is the training alone: it is sampled as ours is, by the sampler and in the steps of params.yaml.
    """

    def __init__(self, work: Workload, steps: int, widths: tuple[int, ...]) -> None:
        self.config = config = changed_config(work.config, {"sample.guidance": 1.0})
        attends = [config.data.image_size >> level == ATTENTION_SIDE for level in range(len(widths))]
        self.prepare(work, steps, widths, attends, blocks=1, batch=config.train.batch_size, fast=True)
        self.calls = config.sample.steps
        self.description = {
            "image_size": config.data.image_size,
            "schedule": "linear",
            "diffusion": {"timesteps": 1000, "target": "eps", "variance": "fixed"},
        }

    def generate(self, weights: Weights, first: int, count: int) -> np.ndarray:
        """See `Recipe`."""
        self.unet.load_state_dict(weights)
        return by_our_sampler(_Unconditional(self.unet), self.description, self.config, first, count)


class _Unconditional(torch.nn.Module):
    """A UNet2DModel that is called as our own network is."""

    class_embedding = none_class = None

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return self.unet(x, t).sample


def by_our_sampler(unet: Any, description: dict[str, Any], config: Config, first: int, count: int) -> np.ndarray:
    """Generate as params.yaml says; see `Recipe.generate`."""
    options = config.sample.model_dump(exclude={"n", "batch_size"}) | {"seed": config.seed}
    return DiffusionModel(unet, description).sample(count, first=first, batch_size=count, **options)


class DenoisingDiffusionPytorch:
    """Its Trainer, Unet and GaussianDiffusion as their constructors have them, sampled by its own method."""

    def __init__(self, work: Workload, steps: int) -> None:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet

        torch.manual_seed(work.config.seed)
        diffusion = GaussianDiffusion(Unet(DIM), image_size=work.config.data.image_size, timesteps=CALLS)
        self.batch, self.parameters, self.calls = TRAINER_BATCH, count_parameters(diffusion.model), CALLS
        self.run, self.trainer = trainer(work, diffusion)

    def weights(self) -> Weights:
        """See `Recipe`."""
        return self.trainer.ema.ema_model.state_dict()

    def generate(self, weights: Weights, first: int, count: int) -> np.ndarray:
        """See `Recipe`."""
        diffusion = self.trainer.ema.ema_model
        diffusion.load_state_dict(weights)
        torch.manual_seed(first)
        with contextlib.redirect_stderr(io.StringIO()):  # its bar
            images: Tensor = diffusion.eval().sample(batch_size=count)
        # As torchvision's save_image does, by which it writes its samples.
        return images.mul(255).add(0.5).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


PUBLISHED: dict[str, Any] = {
    "ours": Ours,
    "diffusers": Diffusers,
    "denoising_diffusion_pytorch": DenoisingDiffusionPytorch,
    "plain": Plain,
}
RECIPES = PUBLISHED | {name: partial(SizedDiffusers, widths=widths) for name, widths in SIZES.items()}
LABELS = {
    "ours": "this project, `params.yaml`",
    "diffusers": "`diffusers`, its Flowers-102 command",
    "denoising_diffusion_pytorch": "`denoising-diffusion-pytorch`, defaults",
    "plain": "plain U-Net, no EMA, linear, 1000 steps",
} | {
    name: f"`diffusers`, its script, channels {', '.join(map(str, widths))}, sampled as ours"
    for name, widths in SIZES.items()
}
