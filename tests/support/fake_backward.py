"""Backward passes of fake CUDA tensors, in Python, because PyTorch's engine would ask the driver for a context."""

import contextlib
import heapq
import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor


class _Box:
    """A tensor that a node has saved for the backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor


class _Engine:
    """Calls the nodes of a graph in the order of PyTorch's engine, and lets go of what each has saved as that does."""

    def __init__(self) -> None:
        self.used: list[_Box] = []
        self.keeps = False
        self.task = -1
        self._tasks = itertools.count(1)

    def unpack(self, box: _Box) -> Tensor:
        if not self.keeps:
            self.used.append(box)
        assert box.tensor is not None, "a second backward pass through a graph that is gone"
        return box.tensor

    def __call__(self, outputs: tuple[Tensor, ...], gradients: tuple[Tensor, ...], *_: Any, **__: Any) -> tuple:
        self.task = next(self._tasks)
        try:
            with torch.no_grad():
                self._run({output.grad_fn: {output.output_nr: g} for output, g in zip(outputs, gradients, strict=True)})
        finally:
            self.task = -1
        return ()

    def _run(self, gradients: dict[Any, dict[int, Tensor]]) -> None:
        waits = _count_uses(list(gradients))  # for so many gradients, each node
        number, queue = itertools.count(), []

        def push(node: Any) -> None:  # leaves first, then the newest
            rank = -(10**18) if node.name().endswith("AccumulateGrad") else -node._sequence_nr()
            heapq.heappush(queue, (rank, next(number), node))

        for node in gradients:
            push(node)
        while queue:
            node = heapq.heappop(queue)[2]
            for after in _hand_on(node, self._call(node, gradients.pop(node, {})), gradients):
                waits[after] -= 1
                if not waits[after]:
                    push(after)

    def _call(self, node: Any, given: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
        if not given:
            return (None,) * len(node.next_functions)
        if node.name().endswith("AccumulateGrad"):
            leaf, gradient = node.variable, given[0]
            leaf.grad = gradient if leaf.grad is None else leaf.grad.add_(gradient)
            return ()
        self.used.clear()
        answers = node(*(given.get(place) for place in range(len(node._input_metadata))))
        for box in self.used:
            box.tensor = None
        return answers if isinstance(answers, tuple) else (answers,)


def _count_uses(nodes: list[Any]) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    while nodes:
        for after, _ in nodes.pop().next_functions:
            if after is not None:
                if after not in counts:
                    nodes.append(after)
                counts[after] = counts.get(after, 0) + 1
    return counts


def _hand_on(node: Any, answers: tuple[Tensor | None, ...], gradients: dict[Any, dict[int, Tensor]]) -> list[Any]:
    """Add what a node has answered to the gradients of the nodes behind it; returns those."""
    for (after, place), answer in zip(node.next_functions, answers, strict=False):
        if after is not None and answer is not None:
            of_after = gradients.setdefault(after, {})
            gradient = _like(answer, after._input_metadata[place])
            of_after[place] = of_after[place] + gradient if place in of_after else gradient
    return [after for after, _ in node.next_functions if after is not None]


def _like(gradient: Tensor, metadata: Any) -> Tensor:
    """What the engine checks, and mends: data type and broadcast shape."""
    assert gradient.device == metadata.device, f"a gradient on {gradient.device} of a tensor on {metadata.device}"
    gradient = gradient.to(metadata.dtype)
    return gradient if tuple(gradient.shape) == tuple(metadata.shape) else gradient.sum_to_size(metadata.shape)


@contextlib.contextmanager
def python_backward(patch: Any) -> Iterator[None]:
    """Let `Tensor.backward` of scalars walk in Python within the block; `patch` is a monkeypatch."""
    engine = _Engine()
    patch.setattr(torch.autograd, "_engine_run_backward", engine)
    patch.setattr(torch._C, "_current_graph_task_id", lambda: engine.task)  # by which checkpoint knows the pass
    inputs_of = torch.utils.checkpoint._CheckpointFrame.get_inputs

    def get_inputs(frame: Any) -> Any:  # asked for while another node runs, which does not let go of them
        engine.keeps = True
        try:
            return inputs_of(frame)
        finally:
            engine.keeps = False

    patch.setattr(torch.utils.checkpoint._CheckpointFrame, "get_inputs", get_inputs)
    with torch.autograd.graph.saved_tensors_hooks(_Box, engine.unpack):
        yield
