"""The training loops of others, written down from their published scripts and packages at the installed versions.

Each is for a process of its own, because the libraries change settings of the whole process.
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

from ddpm.config import Config
from ddpm.runtime.devices import autocast_dtype, choose_device
from ddpm.runtime.errors import InputError
from ddpm.runtime.interpreter import lacking

# Of huggingface/diffusers, examples/unconditional_image_generation/train_unconditional.py, with the command that its
# README gives for Flowers-102.
LR, WARMUP, EPOCHS = 1e-4, 500, 100
# By the first word of a contender's name; ours need none.
PACKAGES = {"diffusers": ("diffusers", "accelerate"), "denoising": ("denoising_diffusion_pytorch",)}


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


def train_unconditional(work: Workload, unet: Any, epochs: float, fast: bool) -> tuple[Callable[[int], object], Any]:
    """Their script for a UNet2DModel: what takes so many steps of it, and the EMAModel.

    Args:
        work: images and batch size.
        unet: the network, on the CPU.
        epochs: over which the learning rate falls.
        fast: whether with every switch that they and accelerate offer.
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
    dtype = torch.bfloat16 if fast and trains_in_bf16(config) else torch.float32
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


def installed(names: list[str]) -> list[str]:
    """Those whose packages are there; of the others it is said that they are left out.

    Raises:
        InputError: none is left.
    """
    left = []
    for name in names:
        if missing := lacking(*PACKAGES.get(name.split("_")[0], ())):
            print(f"{name} is left out: {missing} is not installed")
        else:
            left.append(name)
    if not left:
        raise InputError("--only: none of these contenders is installed; run `make install`, or name ours")
    return left


def trains_in_bf16(config: Config) -> bool:
    """Whether this project would train in bf16 here, which is then what the fast peers do as well."""
    return autocast_dtype("auto", choose_device(config.device)) is torch.bfloat16
