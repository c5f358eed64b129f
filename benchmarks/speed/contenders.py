"""Whose trainings are compared: each takes optimisation steps at the same images, batch and (but for one) network.

A contender is built in a process of its own, because the libraries change settings of the whole process. What the
peers do at each step is in `benchmarks.loops`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.loops import EPOCHS, Workload, train_unconditional, trainer, trains_in_bf16
from benchmarks.speed.flops import flops_per_image
from ddpm.config import Config
from ddpm.data.dataset import load_packed
from ddpm.network.unet import UNet, count_parameters
from ddpm.runtime.devices import choose_device


@dataclass(frozen=True)
class Contender:
    """A training that is ready to run.

    run: takes so many further optimisation steps.
    parameters: of the network.
    flops: of the network per image, see `flops_per_image`.
    """

    run: Callable[[int], object]
    parameters: int
    flops: int


def ours(work: Workload) -> Contender:
    """This project: `Training.train_step`, and the sums that its loop keeps."""
    from ddpm.training.setup import prepare

    config = work.config
    training = prepare(config, load_packed(work.packed), choose_device(config.device))
    sums, step = torch.zeros(len(training.curves), device=training.device), 0

    def run(steps: int) -> None:
        nonlocal step
        for _ in range(steps):
            sums.add_(training.train_step(step))
            step += 1

    return Contender(run, count_parameters(training.unet), flops(config))


def diffusers(work: Workload) -> Contender:
    """Their train_unconditional.py as published: fp32, no loader process, plain PyTorch."""
    return _diffusers(work, fast=False)


def diffusers_fast(work: Workload) -> Contender:
    """The same with every switch that they and accelerate offer.

    Everywhere: a loader process per core and the foreach EMA. On a GPU: bf16 where it has it, TF32 and torch.compile.
    Attention is PyTorch's own in both, which xFormers would only replace.
    """
    return _diffusers(work, fast=True)


def denoising_diffusion_pytorch(work: Workload) -> Contender:
    """Its Trainer, defaults but for batch and bf16, with its own U-Net of the width nearest in parameters.

    It cannot be the same network: theirs has linear attention at every resolution. Sampling and saving never come.
    """
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    config = work.config
    size, mults = config.data.image_size, tuple(config.model.channel_mults)
    with torch.device("meta"):
        wide = range(8, 2 * config.model.channels + 1, 8)
        widths = {width: count_parameters(Unet(width, dim_mults=mults)) for width in wide}
    width = min(widths, key=lambda width: abs(widths[width] - work.parameters))
    run, _ = trainer(
        work,
        GaussianDiffusion(Unet(width, dim_mults=mults), image_size=size),
        train_batch_size=config.train.batch_size,
        amp=trains_in_bf16(config),
        mixed_precision_type="bf16",
    )
    return Contender(run, widths[width], flops_per_image(lambda: Unet(width, dim_mults=mults), size))


def flops(config: Config) -> int:
    """Operations of this project's network per image; classes add none, and a learned variance next to none."""
    size = config.data.image_size
    return flops_per_image(lambda: UNet(config.model, size), size)


CONTENDERS: dict[str, Callable[[Workload], Contender]] = {
    "ours": ours,
    "diffusers": diffusers,
    "diffusers_fast": diffusers_fast,
    "denoising_diffusion_pytorch": denoising_diffusion_pytorch,
}
LABELS = {
    "ours": "this project",
    "diffusers": "`diffusers`, their script as published",
    "diffusers_fast": "`diffusers`, every fast switch",
    "denoising_diffusion_pytorch": "`denoising-diffusion-pytorch`, own network",
}


def _diffusers(work: Workload, fast: bool) -> Contender:
    from diffusers import UNet2DModel

    unet = UNet2DModel.from_pretrained(work.exported, subfolder="unet")
    run, _ = train_unconditional(work, unet, EPOCHS, fast)
    build = lambda: UNet2DModel.from_config(UNet2DModel.load_config(work.exported, subfolder="unet"))  # noqa: E731
    return Contender(run, count_parameters(unet), flops_per_image(build, work.config.data.image_size))
