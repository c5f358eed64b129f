"""CUDA tensors without a GPU: devices, data types, host synchronisations and memory are real, numbers are not.

Tensors are PyTorch's fake ones (shapes, types and devices; no data). What they cannot do by themselves is done here,
with private parts of PyTorch, which another version may not have: see `VERSIONS`. Nothing here knows numbers, streams,
compiled code, NCCL, or which kernels are deterministic.
"""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.utils._foreach_utils
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.schedules import SCHEDULES
from tests.support.fake_backward import python_backward
from tests.support.gpu_watch import Watch, pinned

VERSIONS = ("2.15",)  # of PyTorch, in which this is known to work
needs_fakes = pytest.mark.skipif(
    torch.__version__.rpartition(".")[0] not in VERSIONS,
    reason=f"fake CUDA tensors lean on private parts of PyTorch {', '.join(VERSIONS)}; this is {torch.__version__}",
)
CUDA = torch.device("cuda", 0)
aten = torch.ops.aten


@contextlib.contextmanager
def fake_cuda(total: int = 80 * 2**30, watch: Watch | None = None) -> Iterator[Watch]:
    """Let PyTorch see one GPU of so many bytes within the block, all of whose tensors are fake.

    Tensors of the host that are made within are fake too, and `numpy()` of one gives ones.
    """
    watch = watch or Watch()
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        _driver(patch, watch, total)
        _tensors(patch)
        stack.enter_context(python_backward(patch))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(watch)
        yield watch


def _driver(patch: pytest.MonkeyPatch, watch: Watch, total: int) -> None:
    """What `torch.cuda` asks the driver."""
    about = SimpleNamespace(total_memory=total, name="a fake GPU", major=8, minor=6, multi_processor_count=80)

    def set_device(device: Any) -> None:
        if isinstance(device, torch.device) and device.index is None:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")

    def reset() -> None:
        watch.peak = watch.now

    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": set_device,
        "device": lambda device: contextlib.nullcontext(),
        "is_bf16_supported": lambda including_emulation=True: True,
        "synchronize": lambda device=None: watch.note("synchronize"),
        "mem_get_info": lambda device=None: (total - watch.now, total),
        "get_device_properties": lambda device=None: about,
        "get_device_name": lambda device=None: about.name,
        "get_device_capability": lambda device=None: (about.major, about.minor),
        "max_memory_allocated": lambda device=None: watch.peak,
        "max_memory_reserved": lambda device=None: watch.peak,
        "memory_allocated": lambda device=None: watch.now,
        "reset_peak_memory_stats": lambda device=None: reset(),
        "empty_cache": lambda: None,
        "manual_seed_all": lambda seed: None,
        # Of the checkpointed activations' dropout.
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
    }
    for name, answer in answers.items():
        patch.setattr(torch.cuda, name, answer)


def _tensors(patch: pytest.MonkeyPatch) -> None:
    """What fake tensors cannot do by themselves."""
    patch.setattr(FakeTensorMode, "avoid_device_init", property(lambda mode: True))
    patch.setattr(torch.utils._foreach_utils, "_foreach_supported_types", [Tensor, nn.Parameter, FakeTensor])
    patch.setattr(Tensor, "pin_memory", pinned)
    patch.setattr(Tensor, "numpy", _numpy)
    patch.setattr(nn.Module, "to", _move)
    patch.setattr(nn.functional, "scaled_dot_product_attention", _attend)
    patch.setattr(Diffusion, "__init__", _with_known_levels(Diffusion.__init__))


def _with_known_levels(true_init: Any) -> Any:
    """`Diffusion.__init__`, and after it the levels that the host calculates with, which no fake tensor has."""

    def init(diffusion: Diffusion, schedule: str, timesteps: int, *args: Any, **kwargs: Any) -> None:
        true_init(diffusion, schedule, timesteps, *args, **kwargs)
        with unset_fake_temporarily():
            diffusion._alphas_cumprod = SCHEDULES[schedule](timesteps).tolist()

    return init


_true_numpy = Tensor.numpy


def _numpy(tensor: Tensor, *options: Any, **named: Any) -> Any:
    if not isinstance(tensor, FakeTensor):
        return _true_numpy(tensor, *options, **named)
    if tensor.is_cuda:
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
    with unset_fake_temporarily():
        return _true_numpy(torch.ones(tuple(tensor.shape), dtype=tensor.dtype))


def _move(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """`nn.Module.to`, which cannot swap fake tensors in place: the weights become new ones."""
    device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)

    def moved(tensor: Tensor) -> Tensor:
        kind = dtype if tensor.is_floating_point() else None
        form = layout if layout is not None and tensor.dim() == 4 else torch.preserve_format
        return tensor.detach().to(device, kind, memory_format=form)

    for part in module.modules():
        for table, wrap in ((part._parameters, True), (part._buffers, False)):
            for name, tensor in table.items():
                if tensor is not None:
                    table[name] = nn.Parameter(moved(tensor), tensor.requires_grad) if wrap else moved(tensor)
    return module


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by the kernel that a GPU would choose; the choice itself asks the driver."""
    assert q.device == k.device == v.device and q.dtype == k.dtype == v.dtype
    if q.dtype == torch.bfloat16:
        return aten._scaled_dot_product_flash_attention(q, k, v)[0]
    return aten._scaled_dot_product_efficient_attention(q, k, v, None, q.requires_grad)[0]
