"""Images with their channels last in memory, and their gradients too: convolutions on a CPU read them so.

Some operations give their gradient in the order of torch's default whatever the order of what they were given: the mean over
all pixels, and what flattens an image. An activation before them would then read its output and its gradient in different
orders, which takes it several times as long; in a small network that is a third of the update. So the gradient is brought
into order where it leaves such an operation. Shapes: `b` examples, images (b, c, h, w).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

_LOSE_ORDER = frozenset({"MeanBackward1", "SumBackward1", "AdaptiveAvgPool2DBackward0", "CloneBackward0"})
"""Operations whose gradient has its channels first; `Clone` is what flattens an image with its channels last."""
_OF_OTHERS = frozenset({"TransposeBackward0", "PermuteBackward0"})
"""What four axes are after which are no image: the heads of attention."""


def channels_last(x: Tensor) -> Tensor:
    """Images with their channels last in memory; other tensors as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def keep_in_backward(out: Tensor) -> None:
    """Let the gradients of images on the way to ``out`` have their channels last, in the next backward pass."""
    if out.grad_fn is None:
        return
    seen: set[Node] = {out.grad_fn}
    left: list[Node] = [out.grad_fn]
    while left:
        node = left.pop()
        loses = node.name() in _LOSE_ORDER
        for earlier, _ in node.next_functions:
            if earlier is None:
                continue
            if loses and earlier.name() not in _OF_OTHERS:
                earlier.register_prehook(_in_order)
            if earlier not in seen:
                seen.add(earlier)
                left.append(earlier)


def _in_order(gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    return tuple(None if each is None else channels_last(each) for each in gradients)
