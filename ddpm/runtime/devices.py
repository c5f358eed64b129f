"""Which device does the work, and in which precision."""

import ctypes
import os
import shutil
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil
import torch

from ddpm.runtime.errors import InputError

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's malloc.h


def choose_device(name: str) -> torch.device:
    """Turn `device` of params.yaml into a device that is there.

    Args:
        name: auto, cuda or cpu; auto prints to stderr when there is no GPU.

    Raises:
        InputError: see `check_device`; or there are fewer GPUs than processes.
    """
    check_device(name)
    unusable = why_no_gpu()
    if name == "auto" and unusable and is_first():
        print(f"{unusable}, so this runs on the CPU; the full recipe needs a GPU.", file=sys.stderr)
    if unusable or name == "cpu":
        return torch.device("cpu")
    number = _local_rank()
    if number >= torch.cuda.device_count():
        raise InputError(
            f"process {number + 1} finds only {torch.cuda.device_count()} CUDA GPUs; start as many processes"
        )
    torch.cuda.set_device(number)  # for pinned memory and NCCL, which would take the first one
    return torch.device("cuda", number)


def check_device(name: str) -> None:
    """See that what `device` of params.yaml asks for is there, without a word.

    Raises:
        InputError: cuda was asked for, and PyTorch sees no GPU, or none that it has kernels for.
    """
    if name != "cuda" or not (unusable := why_no_gpu()):
        return
    if torch.cuda.is_available():
        raise InputError(f"device: cuda, but {unusable}; install a PyTorch that has them, or set it to auto or cpu")
    raise InputError(
        "device: cuda, but PyTorch sees no CUDA GPU; check `nvidia-smi` and the driver, or set it to auto or cpu"
    )


def why_no_gpu() -> str | None:
    """Why no GPU can be used, the beginning of a sentence; None if one can.

    A wheel of PyTorch has kernels for some generations of GPUs; on others each of them fails when it is started.
    """
    if not torch.cuda.is_available():
        return "No CUDA GPU was found"
    number, compiled = _local_rank(), torch.cuda.get_arch_list()
    if torch.version.cuda is None or not compiled or number >= torch.cuda.device_count():
        return None  # AMD's have other names; and `choose_device` says that there are too few
    capability = torch.cuda.get_device_capability(number)
    if any(_runs(architecture, capability) for architecture in compiled):
        return None
    name, (major, minor) = torch.cuda.get_device_name(number), capability
    return (
        f"this PyTorch ({torch.__version__}: {', '.join(compiled)}) has no kernels for the {name}, which has "
        f"compute capability {major}.{minor}"
    )


def _runs(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether a GPU runs what was compiled for, say, sm_86, or sm_90a: the same generation, no newer than itself.

    compute_86 is code that its driver compiles for each that is not older.
    """
    kind, _, version = architecture.partition("_")
    number = int("".join(filter(str.isdigit, version)))
    oldest = divmod(number, 10)
    return capability >= oldest if kind == "compute" else capability[0] == oldest[0] and capability >= oldest


def _local_rank() -> int:
    """Number of this process among those that torchrun started on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def kind_of_device(name: str) -> torch.device:
    """What `choose_device` will take, or would if it were there: not which GPU, and without a word."""
    return torch.device("cuda" if name != "cpu" and not why_no_gpu() else "cpu")


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Turn `precision` of params.yaml into the data type of the autocast region; None keeps everything in float32.

    float16 is not offered: its small range lets DDPM trainings end in NaN, sometimes after days.

    Raises:
        InputError: bf16 was asked for on a GPU that lacks it.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and device.type == "cuda" and not native:
        raise InputError("precision: bf16, but this GPU has no bfloat16 arithmetic; set it to auto or fp32")
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and native) else None


def free_memory(device: torch.device) -> int:
    """Bytes that this process may take: free ones of a GPU, or of the host a part like that of its siblings there."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def compiles(choice: bool | Literal["auto"], deterministic: bool, device: torch.device) -> bool:
    """Turn `train.compile` into whether the network is compiled; auto prints to stderr when a GPU has to do without.

    Raises:
        InputError: it was asked for, and there is no compiler.
    """
    wanted = device.type == "cuda" and not deterministic if choice == "auto" else choice
    # Triton has its launchers compiled by a C compiler, PyTorch its loops on a CPU by one for C++.
    variable, names = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++", "clang++"))
    header = Path(sysconfig.get_paths()["include"], "Python.h")  # of python3-dev; for Triton's launchers
    missing = None if any(map(shutil.which, (os.environ.get(variable, ""), *names))) else names[0]
    if device.type == "cuda" and not missing and not header.exists():
        missing = str(header)
    if not wanted or not missing:
        return wanted
    advice = f"torch.compile finds no {missing}; install it, or set train.compile to false"
    if choice != "auto":
        raise InputError(f"train.compile: {advice}")
    if is_first():
        print(
            f"The training goes on without torch.compile, slower and with 1.4 times the memory: {advice}.",
            file=sys.stderr,
        )
    return False


def is_first() -> bool:
    """Return whether this is rank 0, which prints for all ranks; or the only process."""
    return os.environ.get("RANK", "0") == "0"


def allow_tf32() -> None:
    """Let a GPU's float32 products of matrices use TF32, as PyTorch lets its convolutions; a CPU takes no notice."""
    torch.backends.cuda.matmul.allow_tf32 = True


def keep_freed_memory() -> None:
    """Let this process keep what a step frees for the next one to take, for as long as it lives; with glibc alone.

    It would hand large pieces back to the system at once, and a CPU's next step would pay for every page anew.
    """
    with suppress(AttributeError):  # other C libraries have no such switch
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)


def make_deterministic() -> None:
    """Let PyTorch use only algorithms that give the same bits each time; it raises where there is none.

    Without this, a GPU adds up gradients (convolutions, attention, embeddings) in whatever order its threads end, so
    that two trainings drift apart in the last bits, and then in the pictures. A CPU keeps its order anyway.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    torch.use_deterministic_algorithms(True)


def describe(device: torch.device, processes: int = 1) -> str:
    """Name the devices of all processes for people, such as "4 x NVIDIA H100 80GB HBM3" or "CPU, 8 threads"."""
    threads = torch.get_num_threads()
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else f"CPU, {threads} thread{'s' * (threads != 1)}"
    return f"{processes} x {name}" if processes > 1 else name


def memory(device: torch.device) -> int:
    """Bytes of memory that the device has, in use or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout of weights and images that is faster: channels last on the CPU, where it gains a fifth or more."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format
