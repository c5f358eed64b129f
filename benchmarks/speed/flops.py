"""Floating-point operations: how many a training takes per image, and how many a device can do."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm.commands.gpus import known_gpu

MATRIX = 2048


def flops_per_image(build: Callable[[], nn.Module], image_size: int) -> int:
    """Count one forward and backward pass of one image, a multiplication and an addition as two.

    Nothing is computed: the network is built without data, on PyTorch's meta device, so attention counts as its matrix
    products, without what some kernels compute again in the backward pass.

    Args:
        build: builds a network that takes (1, 3, H, W) and (1,) int64.
        image_size: H and W.
    """
    with torch.device("meta"):
        network, x, t = build(), torch.randn(1, 3, image_size, image_size), torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        output = network(x, t)
        (output if isinstance(output, Tensor) else output.sample).sum().backward()
    return counter.get_total_flops()


def peak(device: torch.device) -> float | None:
    """FLOP/s that the device can do: of a GPU by its data sheet, None if it is not known; of a CPU as measured now."""
    if device.type == "cuda":
        gpu = known_gpu(torch.cuda.get_device_name(device))
        return gpu.bf16 if gpu else None
    matrix = torch.randn(MATRIX, MATRIX)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return 2 * MATRIX**3 / min(seconds)
