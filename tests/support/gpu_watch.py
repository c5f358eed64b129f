"""What a GPU would have to do with each operation on fake CUDA tensors: wait, complain, or find memory."""

import traceback
import weakref
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Their result, or its shape, is a number on the host.
WAITING = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
BLOCK = 512  # bytes; CUDA's caching allocator hands out multiples


class Watch(TorchDispatchMode):
    """Sees every operation.

    Attributes:
        waits: "operation (place in the product)" of those for which the host would wait.
        now, peak: bytes on the GPU.
        kernels: operations on the GPU that are no mere views.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.now = self.peak = self.kernels = 0
        self._sizes: dict[int, int] = {}

    def note(self, what: str) -> None:
        """Take down that the host waits here."""
        frames = [frame for frame in traceback.extract_stack() if "/ddpm/" in frame.filename]
        place = f" ({frames[-1].filename.split('/ddpm/')[-1]}:{frames[-1].lineno})" if frames else ""
        self.waits.append(what + place)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func.namespace == "aten" and func._can_decompose():
            with self:  # inference mode hands over composite operations whole, and with them the copies within
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        name = func._schema.name.removeprefix("aten::")
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self._look(name, args, kwargs, inputs)
        answer = _on_the_host(name, args, inputs)
        result = func(*args, **kwargs) if answer is None else answer
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.is_cuda]
        self.kernels += bool(outputs) and not func.is_view
        for output in outputs:
            self._hold(output)
        return result

    def _look(self, name: str, args: Any, kwargs: Any, inputs: list[Tensor]) -> None:
        on_gpu = any(tensor.is_cuda for tensor in inputs)
        if on_gpu and name in WAITING:
            self.note(name)
        if name in INDEXING:
            self._look_at_indices(name, args[0], [index for index in args[1] if index is not None])
        if name in ("_to_copy", "copy_"):
            self._look_at_copy(name, args, kwargs)
        if generator := kwargs.get("generator"):
            kind = torch.device(kwargs.get("device") or inputs[0].device).type
            assert generator.device.type == kind, f"{name}: a generator of the {generator.device} for the {kind}"
        if name == "searchsorted" and isinstance(args[1], Tensor):
            assert args[0].dtype == args[1].dtype, f"searchsorted: {args[1].dtype} among {args[0].dtype}"

    def _look_at_indices(self, name: str, tensor: Tensor, indices: list[Tensor]) -> None:
        if not tensor.is_cuda:
            assert not any(index.is_cuda for index in indices), "indices on the GPU for a tensor on the host"
        elif any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            # What is read so has a shape that fake tensors do not know, of which they would only say "nonzero".
            assert name != "index", f"{name} by a mask"
            self.note(f"{name} by a mask")
        elif not all(index.is_cuda for index in indices):
            self.note(f"{name} by indices on the host")

    def _look_at_copy(self, name: str, args: Any, kwargs: Any) -> None:
        source = args[name == "copy_"]
        to = torch.device(args[0].device if name == "copy_" else kwargs.get("device") or source.device)
        in_background = kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
        if source.is_cuda and to.type == "cpu":
            self.note("copy to the host")
        if source.is_cpu and to.type == "cuda" and not (in_background and getattr(source, "pinned", False)):
            self.note("copy to the GPU that is not pinned" if in_background else "copy to the GPU")

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._sizes:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._sizes[storage._cdata] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, storage._cdata)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def _on_the_host(name: str, args: Any, inputs: list[Tensor]) -> Any:
    """What an operation tells the host; fake tensors have no numbers, so it is a 1, or True."""
    if name == "_local_scalar_dense" and isinstance(args[0], FakeTensor) and args[0].constant is None:
        return 1.0 if args[0].dtype.is_floating_point else 1
    if name == "equal" and any(isinstance(tensor, FakeTensor) for tensor in inputs):
        return True
    if name == "is_pinned":
        return getattr(args[0], "pinned", False)
    if name == "_pin_memory":
        return pinned(args[0])
    return None


def pinned(tensor: Tensor, *_: Any) -> Tensor:
    """A copy that a GPU could fetch while the host goes on."""
    copy = tensor.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy
