"""GPUs as their makers' data sheets describe them, for a forecast on a machine that has none of them."""

import re
from dataclasses import dataclass

from ddpm.runtime.errors import InputError


@dataclass(frozen=True)
class Gpu:
    """One model.

    memory: bytes.
    bf16, tf32: dense peaks with sums in float32, FLOP/s.
    bandwidth: of its memory, bytes/s.
    """

    name: str
    memory: float
    bf16: float
    tf32: float
    bandwidth: float


def _gpu(name: str, gib: float, bf16: float, tf32: float, bandwidth: float) -> Gpu:
    return Gpu(name, gib * 2**30, bf16 * 1e12, tf32 * 1e12, bandwidth * 1e9)


# GiB that PyTorch sees, TFLOP/s, TFLOP/s, GB/s.
GPUS = [
    _gpu("RTX 3060", 12, 25.5, 12.7, 360),
    _gpu("RTX 3080 Ti", 12, 68, 34.1, 912),
    _gpu("RTX 3090", 24, 71, 35.6, 936),
    _gpu("RTX 4090", 24, 165, 82.6, 1008),
    _gpu("RTX 5090", 32, 209, 104.8, 1792),
    _gpu("A100", 79, 312, 156, 2039),  # of 80 GB
    _gpu("H100 PCIe", 79, 756, 378, 2039),
    _gpu("H100", 79, 989, 494, 3350),  # SXM
    _gpu("H200", 139, 989, 494, 4800),
]


def find_gpu(name: str | None, memory: float | None, tflops: float | None, bandwidth: float | None) -> Gpu:
    """Find a GPU of the table, or make one of three numbers.

    Args:
        name: as it is sold, in any spelling; or None.
        memory: GiB.
        tflops: dense bf16 peak with sums in float32, TFLOP/s; that of TF32 is taken as half of it.
        bandwidth: GB/s.

    Raises:
        InputError: the name is not in the table, or numbers are missing or not positive.
    """
    numbers = {"--gpu-memory": memory, "--gpu-tflops": tflops, "--gpu-bandwidth": bandwidth}
    given = {option: number for option, number in numbers.items() if number is not None}
    if name and not given:
        wanted = _plain(name)
        found = [gpu for gpu in GPUS if _plain(gpu.name) == wanted]
        if not found:
            names = ", ".join(gpu.name for gpu in GPUS)
            raise InputError(f"--gpu: {name!r} is not in the table ({names}); give {', '.join(numbers)} of it instead")
        return found[0]
    if name or len(given) < len(numbers):
        missing = ", ".join(option for option in numbers if option not in given)
        raise InputError(f"--gpu: give a name alone, or all three numbers{f'; {missing} missing' if missing else ''}")
    for option, number in given.items():
        if not 0 < number < 1e6:
            raise InputError(f"{option}: found {number:g}, expected a number above 0; see the GPU's data sheet")
    size, peak, speed = given.values()
    return _gpu("this GPU", size, peak, peak / 2, speed)


def known_gpu(cuda_name: str) -> Gpu | None:
    """Find the GPU that CUDA calls so, such as "NVIDIA A100-SXM4-80GB"; None if the table lacks it, or has its kin."""
    words = re.split(r"[^a-z0-9]+", cuda_name.lower())
    kin = {"laptop", "mobile", "ti", "super", "d", "nvl", "mig", "max"}
    for gpu in sorted(GPUS, key=lambda gpu: -len(gpu.name)):
        own = gpu.name.lower().split()
        if set(own) <= set(words) and not kin & (set(words) - set(own)):
            return gpu
    return None


def _plain(name: str) -> str:
    words = name.lower().replace("nvidia", "").replace("geforce", "")
    return "".join(filter(str.isalnum, words))
