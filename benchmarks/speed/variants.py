"""A training step and sampling in the forms that PyTorch offers for one network; each for a process of its own."""

import time
from typing import Any

import torch

from benchmarks import spread
from benchmarks.changes import changed_config
from ddpm.commands.estimate import CHUNK_SECONDS, random_images, sampling_seconds, step_timer
from ddpm.config import Config
from ddpm.model.trained import DiffusionModel
from ddpm.network.unet import UNet
from ddpm.runtime.devices import choose_device
from ddpm.runtime.errors import unless_too_large
from ddpm.runtime.forecast import peak_memory
from ddpm.training.setup import describe_model, prepare

IMAGES, CLASSES = 1024, 102
CHUNKS = 5  # timed one after the other
CHANNELS_LAST = "compiled, channels_last"
STEPS = {"not compiled": False, "compiled": True, CHANNELS_LAST: True}  # and whether they are compiled
SAMPLING: dict[str, str | None] = {"not compiled": None, "compiled": "default", "CUDA graphs": "reduce-overhead"}


def training_step(config: Config, form: str) -> dict[str, Any]:
    """Time optimisation steps in one form of `STEPS`.

    Returns:
        step_seconds (least, median, greatest), first_seconds (of the first step, which compiles), memory and reserved
        (bytes: of the tensors at the peak, and with what the allocator cannot hand out; reserved is None on a CPU).
        Or failed: why there are none.
    """
    device = choose_device(config.device)
    config = changed_config(config, {"train.compile": STEPS[form]})
    result = unless_too_large(lambda: _training_step(config, form == CHANNELS_LAST, device))
    return result or {"failed": f"{config.train.batch_size} images do not fit into the memory"}


def _training_step(config: Config, channels_last: bool, device: torch.device) -> dict[str, Any]:
    training = prepare(config, random_images(config, max(IMAGES, config.train.batch_size), CLASSES), device)
    if channels_last:
        training.unet.to(memory_format=torch.channels_last)
    seconds = step_timer(training)
    first, second = seconds(1), seconds(1)
    count = max(1, int(CHUNK_SECONDS / second))
    chunks = [seconds(count) for _ in range(CHUNKS)]
    return {"step_seconds": spread(chunks), "first_seconds": first, **_memory(device)}


def sampling(config: Config, form: str, size: int) -> dict[str, Any]:
    """Time the sampling of params.yaml by an untrained network in one form of `SAMPLING`, so many images at a time.

    Returns:
        images_per_second, warm_up_seconds (of two steps, which compile), memory and reserved as `training_step` has
        them. Or failed: why there are none.
    """
    device = choose_device(config.device)
    return unless_too_large(lambda: _sampling(config, SAMPLING[form], size, device)) or {
        "failed": f"{size} images do not fit into the memory"
    }


def _sampling(config: Config, mode: str | None, size: int, device: torch.device) -> dict[str, Any]:
    config = changed_config(config, {"train.compile": False})
    packed = random_images(config, max(IMAGES, config.train.batch_size), CLASSES)
    training = prepare(config, packed, device)
    model = DiffusionModel(training.ema.model, describe_model(config, packed, training))
    if mode:
        _compile(model.unet, mode)
    chosen = config.sample.model_copy(update={"batch_size": size})
    started = time.perf_counter()
    options = chosen.model_dump(exclude={"n", "steps", "batch_size"})
    model.sample(size, steps=2, batch_size=size, **options)
    warm_up = time.perf_counter() - started
    seconds = sampling_seconds(model, chosen, config.seed, size)
    return {"images_per_second": chosen.n / seconds, "warm_up_seconds": warm_up, **_memory(device)}


def _compile(unet: UNet, mode: str) -> None:
    """Let the network be compiled at its first call; its answers are copied, for a graph writes the next over them."""
    compiled = torch.compile(unet.forward, mode=mode)
    unet.forward = lambda *given: compiled(*given).clone()  # type: ignore[method-assign]


def _memory(device: torch.device) -> dict[str, float | None]:
    reserved = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    return {"memory": peak_memory(device), "reserved": reserved}
