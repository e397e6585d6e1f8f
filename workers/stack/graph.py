"""CUDA graphs: many kernels with one launch, since small networks are bound by launches.

What is captured is the eager code. To compile it as well takes tens of seconds and makes large stacks two to three times
faster, which a search of minutes does not earn back.

Reference: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UPS = 2


class Graph:
    """``function(*inputs)`` as one CUDA graph. What else it reads and writes has to stay in its place in memory.

    Args:
        function: Of tensors; returns a tensor.
        inputs: Of the shapes of every later call.
        changed: Tensors that the function changes; making the graph leaves them as they are.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor], changed: Sequence[Tensor]) -> None:
        self._inputs = [each.clone() for each in inputs]
        before = [each.clone() for each in changed]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = function(*self._inputs)
        for each, kept in zip(changed, before, strict=True):
            each.copy_(kept)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the function returns, in memory that the next call writes to again."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._out
