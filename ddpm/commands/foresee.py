"""What a training would need on a GPU that is not here: counted on tensors without data, operation by operation."""

import math
import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from ddpm.commands.calibration import Calibration
from ddpm.commands.gpus import Gpu
from ddpm.config import Config
from ddpm.data.dataset import PackedImages
from ddpm.network.unet import ResidualBlock, UNet, count_parameters
from ddpm.training.augment import LABELS
from ddpm.training.setup import unet_parts

BLOCK = 512  # bytes; CUDA's caching allocator hands out multiples
CONTEXT = 0.6e9  # bytes of CUDA's context and the libraries' workspaces, assumed
BATCH_TENSORS = 8  # of the size of a batch in float32: images, noise, x_t, target, errors
EAGER = 0.3  # of the peak that the operations of a step that is not compiled reach at worst, assumed
BANDWIDTH = 0.7  # of the memory's, likewise
LAUNCH = 6e-6  # seconds between the starts of two kernels, assumed
OPTIMIZER_PASSES = 12  # over the float32 weights, in a step: of gradient norm, clipping, AdamW and average


@dataclass(frozen=True)
class Need:
    """What a training step, or a network call of sampling, needs.

    memory: bytes at the peak.
    flops: multiplications and additions, two each.
    traffic: bytes that the operations read and write, one by one.
    kernels: operations.
    bounds: (FLOP, bytes) of each operation.
    """

    memory: float
    flops: float
    traffic: float
    kernels: int
    bounds: tuple[tuple[float, float], ...]

    def seconds(self, gpu: Gpu, dtype: torch.dtype, known: Calibration) -> tuple[float, float]:
        """Shortest and longest: compiled and busy with arithmetic alone, and operation by operation."""
        peak = gpu.bf16 if dtype == torch.bfloat16 else gpu.tf32
        one_by_one = (max(flops / peak / EAGER, moved / gpu.bandwidth / BANDWIDTH) for flops, moved in self.bounds)
        compiled, eager = self.flops / peak / known.compiled, max(sum(one_by_one), self.kernels * LAUNCH) * known.eager
        return min(compiled, eager), max(compiled, eager)


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that tensors take, and the work of each operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.bounds: list[tuple[float, float]] = []
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for output in outputs:
            self._hold(output)
        if outputs and not func.is_view and func._schema.name != "aten::_unsafe_view":
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            moved = sum(tensor.numel() * tensor.element_size() for tensor in inputs + outputs)
            self.bounds.append((_flops(func, args, kwargs or {}, result), moved))
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = size = -(-storage.nbytes() // BLOCK) * BLOCK
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, storage._cdata)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class _FusedDropout(nn.Dropout):
    """Dropout as a GPU does it: its mask takes a byte per number, and a CPU's as much as the number."""

    def forward(self, input: Tensor) -> Tensor:
        """Map any shape to the same."""
        return torch.native_dropout(input, self.p, self.training)[0]


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> float:
    """PyTorch's own formulas; those of attention it has for GPUs alone."""
    match func._schema.name:
        case "aten::_scaled_dot_product_flash_attention_for_cpu":
            shapes = (tensor.shape for tensor in args[:3])
            return sdpa_flop_count(*shapes)  # type: ignore[no-untyped-call]
        case "aten::_scaled_dot_product_flash_attention_for_cpu_backward":
            shapes = (tensor.shape for tensor in args[:4])
            return sdpa_backward_flop_count(*shapes)  # type: ignore[no-untyped-call]
    formula = flop_registry.get(func._overloadpacket)
    return formula(*args, **kwargs, out_val=result) if formula else 0.0


def dtype_of(config: Config, precision: str) -> torch.dtype:
    """What a GPU of the table calculates in: all of them have bfloat16."""
    return torch.float32 if precision == "fp32" else torch.bfloat16


def training_need(config: Config, packed: PackedImages, images: int) -> Need:
    """Count a training step that is not compiled, with so many images in the GPU's memory.

    A CPU's autocast rounds where a GPU's does, because `GroupNorm` takes what it gets on both.
    """
    train, dtype = config.train, dtype_of(config, config.train.precision)
    sizes = [len(part) for part in torch.arange(train.batch_size).chunk(train.accumulate)]
    parts = unet_parts(config, packed)
    with FakeTensorMode():
        unet = UNet(*parts).train()
        for module in unet.modules():
            if isinstance(module, ResidualBlock) and config.model.dropout:
                module.dropout = _FusedDropout(config.model.dropout)
        unet.checkpoint_activations = train.checkpoint_activations
        with _Count() as count:
            weights = _held(count, unet)
            for size in sizes[:2]:  # in the second one, the gradients of the first are there
                count.bounds.clear()
                _answer(unet, config, size, dtype).float().square().mean().backward()  # type: ignore[no-untyped-call]
        parameters = count_parameters(unet)
    pixels = 3 * config.data.image_size**2
    state = count.peak - weights + 4 * 4 * parameters  # weights, AdamW's two moments, average
    memory = state + 4 * pixels * BATCH_TENSORS * train.batch_size + pixels * images
    passes = (0.0, OPTIMIZER_PASSES * 4.0 * parameters)
    scale = train.batch_size / sizes[:2][-1]
    bounds = tuple((flops * scale, moved * scale) for flops, moved in count.bounds)
    return _need(memory, (*bounds, passes), round(len(bounds) * len(sizes)))


def sampling_need(config: Config, packed: PackedImages, size: int) -> Need:
    """Count a step of sampling for so many images."""
    twice, parts = 2 if config.sample.guidance not in (0, 1) else 1, unet_parts(config, packed)
    with FakeTensorMode(), torch.no_grad():
        unet = UNet(*parts).eval()
        with _Count() as count:
            _held(count, unet)
            _answer(unet, config, twice * size, dtype_of(config, config.sample.precision))
    state = 4 * 3 * config.data.image_size**2 * BATCH_TENSORS * size
    return _need(count.peak + state, tuple(count.bounds), len(count.bounds))


def _need(memory: float, bounds: tuple[tuple[float, float], ...], kernels: int) -> Need:
    flops, moved = (sum(values) for values in zip(*bounds, strict=True))
    return Need(memory, flops, moved, kernels, bounds)


def _held(count: _Count, unet: UNet) -> int:
    for parameter in unet.parameters():
        count._hold(parameter)
    return count.now


def _answer(unet: UNet, config: Config, size: int, dtype: torch.dtype) -> Tensor:
    side = config.data.image_size
    x, t = torch.empty(size, 3, side, side), torch.zeros(size, dtype=torch.int64)
    labels = t if unet.class_embedding is not None else None
    augmentations = torch.zeros(size, LABELS) if unet.augment is not None and unet.training else None
    with torch.autocast("cpu", dtype) if dtype == torch.bfloat16 else nullcontext():
        return unet(x, t, labels, augmentations)


def room(gpu: Gpu, known: Calibration) -> float:
    """Bytes that tensors can take."""
    return gpu.memory * (1 - known.fragments) - CONTEXT


def fitting(
    config: Config, packed: PackedImages, images: int, gpu: Gpu, known: Calibration
) -> tuple[Config, Need] | None:
    """Find parameters that let a training fit: as it is, in more parts, or with its activations forgotten too."""
    batch, parts = config.train.batch_size, config.train.accumulate
    doublings = [min(batch, parts * 2**power) for power in range(math.ceil(math.log2(batch / parts)) + 1)]
    forgets = sorted({config.train.checkpoint_activations, True})
    choices = [
        {"accumulate": count, "checkpoint_activations": forgotten} for forgotten in forgets for count in doublings
    ]

    def tried(changes: dict[str, Any]) -> tuple[Config, Need] | None:
        changed = config.model_copy(update={"train": config.train.model_copy(update=changes)})
        need = training_need(changed, packed, images)
        return (changed, need) if need.memory <= room(gpu, known) else None

    if found := tried(choices[0]):
        return found
    if not tried(choices[-1]):  # which needs the least
        return None
    return next(filter(None, map(tried, choices[1:])))
