"""Whose trainings are compared: each takes optimisation steps at the same images, batch and (but for one) network.

A contender is built in a process of its own, because the libraries change settings of the whole process. What the
peers do at each step is written down from their published scripts and packages, at the versions that are installed.
"""

import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.flops import flops_per_image
from ddpm.config import Config
from ddpm.data.dataset import load_packed
from ddpm.network.unet import UNet, count_parameters
from ddpm.runtime.devices import autocast_dtype, choose_device
from ddpm.runtime.errors import InputError
from ddpm.runtime.interpreter import lacking

# Of huggingface/diffusers, examples/unconditional_image_generation/train_unconditional.py, with the command that its
# README gives for Flowers-102.
LR, WARMUP, EPOCHS = 1e-4, 500, 100


@dataclass(frozen=True)
class Workload:
    """What all contenders train on.

    config: of this project; its batch size holds for all.
    packed: folder of the packed images, a multiple of the batch size, so that no step has fewer.
    pngs: folder of the same images as files.
    exported: folder of the network in the format of diffusers.
    parameters: of the network.
    """

    config: Config
    packed: Path
    pngs: Path
    exported: Path
    parameters: int


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


class Files(torch.utils.data.Dataset):
    """PNG files, decoded and transformed when they are asked for, as a folder is by Hugging Face's datasets."""

    def __init__(self, folder: Path, image_size: int) -> None:
        from torchvision import transforms

        self.paths = sorted(folder.iterdir())
        self.transform = transforms.Compose(
            [
                transforms.Resize(image_size, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.CenterCrop(image_size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index], formats=["PNG"]).convert("RGB"))


def ours(work: Workload) -> Contender:
    """This project: `Training.train_step`, and the sums that its loop keeps."""
    from stages.train import prepare

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
        amp=_bf16(config),
        mixed_precision_type="bf16",
    )
    return Contender(run, widths[width], flops_per_image(lambda: Unet(width, dim_mults=mults), size))


def trainer(work: Workload, diffusion: torch.nn.Module, **options: Any) -> tuple[Callable[[int], object], Any]:
    """The Trainer of denoising-diffusion-pytorch with these options; it and what takes so many of its steps."""
    from denoising_diffusion_pytorch import Trainer

    if choose_device(work.config.device).type == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # the Trainer has no argument for it
    theirs = Trainer(
        diffusion,
        str(work.pngs),
        train_num_steps=0,
        save_and_sample_every=10**9,
        calculate_fid=False,
        results_folder=str(work.exported.parent / "results"),
        **options,
    )

    def run(steps: int) -> None:
        theirs.train_num_steps += steps
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):  # its bar
            theirs.train()

    return run, theirs


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
NEEDS = {
    "ours": (),
    "plain": (),
    "diffusers": ("diffusers", "accelerate"),
    "diffusers_fast": ("diffusers", "accelerate"),
    "denoising_diffusion_pytorch": ("denoising_diffusion_pytorch",),
}
LABELS = {
    "ours": "this project",
    "diffusers": "`diffusers`, their script as published",
    "diffusers_fast": "`diffusers`, every fast switch",
    "denoising_diffusion_pytorch": "`denoising-diffusion-pytorch`, own network",
}


def installed(names: list[str]) -> list[str]:
    """Those whose packages are there; of the others it is said that they are left out.

    Raises:
        InputError: none is left.
    """
    left = []
    for name in names:
        if missing := lacking(*NEEDS[name]):
            print(f"{name} is left out: {missing} is not installed")
        else:
            left.append(name)
    if not left:
        raise InputError("--only: none of these contenders is installed; run `make install`, or name ours")
    return left


def _diffusers(work: Workload, fast: bool) -> Contender:
    from diffusers import UNet2DModel

    unet = UNet2DModel.from_pretrained(work.exported, subfolder="unet")
    run, _ = train_unconditional(work, unet, EPOCHS, fast)
    build = lambda: UNet2DModel.from_config(UNet2DModel.load_config(work.exported, subfolder="unet"))  # noqa: E731
    return Contender(run, count_parameters(unet), flops_per_image(build, work.config.data.image_size))


def train_unconditional(work: Workload, unet: Any, epochs: float, fast: bool) -> tuple[Callable[[int], object], Any]:
    """Their script for a UNet2DModel: what takes so many steps of it, and the EMAModel.

    Args:
        work: images and batch size.
        unet: the network, on the CPU.
        epochs: over which the learning rate falls.
        fast: see `diffusers_fast`.
    """
    import torch.nn.functional as F
    from accelerate import Accelerator
    from accelerate.utils import TorchDynamoPlugin
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel
    from tqdm import tqdm

    config = work.config
    gpu = choose_device(config.device).type == "cuda"
    dtype = torch.bfloat16 if fast and _bf16(config) else torch.float32
    if fast:
        torch.backends.cuda.matmul.allow_tf32 = True
    accelerator = Accelerator(
        mixed_precision="bf16" if dtype is torch.bfloat16 else "no",
        cpu=not gpu,
        dynamo_plugin=TorchDynamoPlugin(backend="inductor") if fast and gpu else None,
    )
    ema = EMAModel(
        unet.parameters(),
        decay=0.9999,
        use_ema_warmup=True,
        inv_gamma=1.0,
        power=3 / 4,
        foreach=fast,
        model_cls=UNet2DModel,
        model_config=unet.config,
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LR, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    loader = torch.utils.data.DataLoader(
        Files(work.pngs, config.data.image_size),
        batch_size=config.train.batch_size,
        shuffle=True,
        num_workers=os.cpu_count() or 1 if fast else 0,
    )
    lr_scheduler = get_scheduler(
        "cosine", optimizer, num_warmup_steps=WARMUP, num_training_steps=math.ceil(epochs * len(loader))
    )
    unet, optimizer, loader, lr_scheduler = accelerator.prepare(unet, optimizer, loader, lr_scheduler)
    ema.to(accelerator.device)

    def train_forever() -> Iterator[None]:
        step = 0
        while True:
            unet.train()
            bar = tqdm(total=len(loader), file=io.StringIO())
            for batch in loader:
                images = batch.to(dtype)
                noise = torch.randn(images.shape, dtype=dtype, device=images.device)
                t = torch.randint(0, scheduler.config.num_train_timesteps, (len(images),), device=images.device).long()
                noisy = scheduler.add_noise(images, noise, t)
                with accelerator.accumulate(unet):
                    loss = F.mse_loss(unet(noisy, t).sample.float(), noise.float())
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(unet.parameters(), 1.0)
                    optimizer.step()
                    lr_scheduler.step()
                    optimizer.zero_grad()
                if accelerator.sync_gradients:
                    ema.step(unet.parameters())
                    step += 1
                    bar.update()
                logs = {"loss": loss.detach().item(), "lr": lr_scheduler.get_last_lr()[0], "step": step}
                bar.set_postfix(**logs, ema_decay=ema.cur_decay_value)
                accelerator.log(logs, step=step)  # to nobody: their TensorBoard is left out, in their favour
                yield
            bar.close()

    training = train_forever()
    return lambda steps: [next(training) for _ in range(steps)], ema


def _bf16(config: Config) -> bool:
    """Whether this project would train in bf16 here, which is then what the fast peers do as well."""
    return autocast_dtype("auto", choose_device(config.device)) is torch.bfloat16
