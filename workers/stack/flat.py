"""A module's state as flat rows, and the module as a pure function of one row.

Shapes: `k` lanes, `P` parameters, `Q` buffer elements (running statistics), `b` examples, `L` dropout layers. Row i of
``weights (k, P)`` and ``stats (k, Q)`` is the whole model of lane i, so that a checkpoint, dropping lanes or an optimizer
step is an operation on whole matrices. The weights of a convolution lie in a row with their channels last, which is how
the fastest convolutions read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.conv import _ConvNd

from service.spec import Recipe
from workers.plain.foreign import ModuleFault
from workers.plain.layers import WeightNormConv2d, rate_of, state_of
from workers.plain.network import Shape, build, head_of, lr_factors
from workers.stack.dropout import LaneDropout
from workers.stack.memory_format import channels_last, keep_in_backward


class FlatModel:
    """The template of a stack: one module, and the layout of its state in a row. Not thread-safe (train/eval mode)."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.shape = shape
        self._device = device
        with torch.device("meta" if device.type == "meta" else "cpu"):  # drawn on the CPU, whatever the device
            self.template = _built(shape, device)
        # Initial values are drawn on the CPU, where they are the same for every device.
        self.module = self.template if device.type in ("cpu", "meta") else build(shape, LaneDropout).to(device)
        if device.type == "cpu":
            _avoid_crashes(self.module)
        for module in (*self.module.modules(), *self.template.modules()):
            if hasattr(module, "num_batches_tracked"):
                # Only momentum=None needs this count, the one integer of a lane.
                module.num_batches_tracked = None  # type: ignore[assignment]
        self.separate: str | None = None
        """Why lanes are computed one by one although they need not be; set by the caller."""
        parameters = {name: value for name, value in self.module.named_parameters() if value.requires_grad}
        self._dropouts = {name: module for name, module in self.module.named_modules() if isinstance(module, LaneDropout)}
        self.names = tuple(parameters)
        self._shapes = [parameter.shape for parameter in parameters.values()]
        self._sizes = [parameter.numel() for parameter in parameters.values()]
        # What is not trained is state all the same, as it may differ between lanes; integers are constants of the module.
        hyper = {f"{name}.{each}" for name in self._dropouts for each in ("rate", "key")}
        rest = {name: value for name, value in state_of(self.module).items() if name not in parameters}
        buffers = {name: value for name, value in rest.items() if name not in hyper and value.dtype == torch.float32}
        self.buffer_names = tuple(buffers)
        self._buffer_shapes = [value.shape for value in buffers.values()]
        self._buffer_sizes = [value.numel() for value in buffers.values()]
        self._batch_norms = [layer for layer in self.module.modules() if hasattr(layer, "running_mean")]
        every = [*self.module.named_parameters(remove_duplicate=False), *self.module.named_buffers(remove_duplicate=False)]
        self._tied = len({id(value) for _, value in every}) < len(every)  # to look for it takes a while in every pass
        self._convolves = any(isinstance(layer, _ConvNd | WeightNormConv2d) for layer in self.module.modules())

    @property
    def parameters(self) -> int:
        """P, the length of a weight row."""
        return sum(self._sizes)

    @property
    def statistics(self) -> int:
        """Q, the length of a row of running statistics."""
        return sum(self._buffer_sizes)

    @property
    def stacks(self) -> bool:
        """Whether several lanes are faster as one batched model: everywhere but for convolutions on a CPU."""
        return self.separate is None and (self._device.type != "cpu" or not self._convolves)

    def drop_in(self, layers: Sequence[bool]) -> None:
        """Say in which dropout layers (L,) some lane has a rate; the others are left out of the graph."""
        for layer, active in zip(self._dropouts.values(), layers, strict=True):
            layer.active = active

    @property
    def dropouts(self) -> int:
        """L, the number of dropout layers."""
        return len(self._dropouts)

    def rates(self, recipe: Recipe) -> list[float]:
        """(L,) the rates of a recipe, in the order of the dropout layers."""
        return [rate_of(recipe, layer.setting, layer.layer) for layer in self._dropouts.values()]

    def rows(self) -> tuple[Tensor, Tensor]:
        """The template's present state as rows (P,) and (Q,), on the CPU."""
        state = state_of(self.template)
        return _flatten(state[name] for name in self.names), _flatten(state[name] for name in self.buffer_names)

    def state_dict(self, weights: Tensor, stats: Tensor) -> dict[str, Tensor]:
        """One lane's rows (P,) and (Q,) as named tensors, as `nn.Module.load_state_dict` takes them."""
        return {**self._parameters(weights), **self._buffers(stats)}

    def penalty_mask(self) -> Tensor:
        """(P,) 1.0 where a parameter is a weight, of two or more dimensions, 0.0 on biases and normalizations."""
        return self._marked([len(shape) > 1 for shape in self._shapes])

    def body_mask(self) -> Tensor:
        """(P,) 1.0 before the last layer, 0.0 in it."""
        head = head_of(self.module)
        return self._marked([not name.startswith(head) for name in self.names])

    def lr_factors(self) -> Tensor | None:
        """(P,) by what the learning rate is multiplied; None if that is 1 everywhere."""
        factors = lr_factors(self.module)
        return None if set(factors.values()) <= {1.0} else self._marked([factors[name] for name in self.names])

    def _marked(self, marks: Sequence[float]) -> Tensor:
        """(P,) the mark of each parameter on all of its elements."""
        sizes = zip(marks, self._sizes, strict=True)
        return torch.cat([torch.full((size,), float(mark), device=self._device) for mark, size in sizes])

    @property
    def largest_activation(self) -> int:
        """Numbers that the largest layer holds for one example."""
        return int(getattr(self.module, "largest_activation"))  # noqa: B009  # every family has it, `nn.Module` has not

    @property
    def normalizes_batches(self) -> bool:
        """Whether some layer's output depends on the whole batch in training."""
        return bool(self._batch_norms)

    @contextmanager
    def running_statistics(self) -> Iterator[None]:
        """Within it, batch normalization uses its running statistics and leaves them as they are, as in eval mode."""
        before = [layer.training for layer in self._batch_norms]
        for layer in self._batch_norms:
            layer.training = False
        try:
            yield
        finally:
            for layer, training in zip(self._batch_norms, before, strict=True):
                layer.training = training

    def units(self) -> tuple[tuple[int, int, int], ...]:
        """Where in a row (first, end) every layer's weights are, and of how many units they are the incoming ones.

        Under weight normalization a unit's norm is its gain |g| (`weight_g`).
        """
        found, start = [], 0
        for name, shape, size in zip(self.names, self._shapes, self._sizes, strict=True):
            if len(shape) > 1 and not name.endswith("weight_v"):
                found.append((start, start + size, int(shape[0])))
            start += size
        return tuple(found)

    def forward(
        self, weights: Tensor, stats: Tensor, rates: Tensor, keys: Tensor, x: Tensor, *, shared: bool = False
    ) -> tuple[Tensor, Tensor]:
        """All lanes at once, in the template's present mode.

        A single lane runs as an ordinary module, without `vmap`, and so does each lane where that is faster.

        Args:
            weights: (k, P).
            stats: (k, Q).
            rates: (k, L) dropout rates.
            keys: (k, L) int32, each lane's key of this update for every dropout layer.
            x: (k, b, ...), or (b, ...) if ``shared`` by all lanes.

        Returns:
            (k, b, outputs), and the running statistics (k, Q) after this pass.
        """
        if weights.shape[0] == 1 or not self.stacks:
            each = [channels_last(x if shared else x[lane]) for lane in range(weights.shape[0])]
            pairs = [self._one(*own) for own in zip(weights, stats, rates, keys, each, strict=True)]
            if self._convolves and self._device.type == "cpu":
                for out, _ in pairs:
                    keep_in_backward(out)
            return torch.stack([out for out, _ in pairs]), torch.stack([updated for _, updated in pairs])
        return vmap(self._one, in_dims=(0, 0, 0, 0, None if shared else 0))(weights, stats, rates, keys, x)

    def _one(self, row: Tensor, stats: Tensor, rates: Tensor, keys: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        buffers = {name: value.clone() for name, value in self._buffers(stats).items()}
        hyper: dict[str, Tensor] = {}
        for index, name in enumerate(self._dropouts):
            hyper[f"{name}.rate"] = rates[index]
            hyper[f"{name}.key"] = keys[index]
        state = {**self._parameters(row), **buffers, **hyper}
        out = functional_call(self.module, state, (x,), tie_weights=self._tied)
        # Batch normalization has updated its clones in place: they are this pass's result.
        updated = _flatten(buffers.values()) if buffers else stats
        return out, updated

    def _parameters(self, row: Tensor) -> dict[str, Tensor]:
        parts = zip(self.names, torch.split_with_sizes(row, self._sizes), self._shapes, strict=True)
        return {name: _unflatten(part, shape) for name, part, shape in parts}

    def _buffers(self, stats: Tensor) -> dict[str, Tensor]:
        if not self.buffer_names:
            return {}
        parts = zip(self.buffer_names, torch.split_with_sizes(stats, self._buffer_sizes), self._buffer_shapes, strict=True)
        return {name: _unflatten(part, shape) for name, part, shape in parts}


def _avoid_crashes(module: nn.Module) -> None:
    """Have layers compute the same in another way where that of a CPU's libraries ends the process.

    Convolutions of one pixel at a stride read every so-many-th pixel instead: with few channels, which lie last in memory,
    oneDNN's gradient of such a convolution writes past its memory; it crashes, or is wrong. Reference:
    https://github.com/uxlfoundation/oneDNN/issues/6035.

    A group normalization of images with their channels last that need no gradient, as after a frozen layer, gets them in
    the usual order: torch's kernel writes that gradient all the same, where there is no memory for it (torch 2.13).
    """
    for layer in module.modules():
        if type(layer) is nn.GroupNorm:
            layer.forward = partial(_group_normalized, layer)  # type: ignore[method-assign]
        if type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.padding == (0, 0) and layer.stride != (1, 1):
            layer.forward = partial(_thinned, layer)  # type: ignore[method-assign]


def _thinned(layer: nn.Conv2d, x: Tensor) -> Tensor:
    down, across = layer.stride
    return F.conv2d(x[..., ::down, ::across], layer.weight, layer.bias, groups=layer.groups)


def _group_normalized(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    fixed = torch.is_grad_enabled() and not x.requires_grad
    return F.group_norm(x.contiguous() if fixed else x, layer.num_groups, layer.weight, layer.bias, layer.eps)


def _built(shape: Shape, device: torch.device) -> nn.Module:
    """The template; a module of theirs that can't be built without memory is built with it."""
    try:
        return build(shape, LaneDropout)
    except ModuleFault:
        if device.type != "meta":
            raise
        with torch.device("cpu"):
            return build(shape, LaneDropout).to("meta")


def _flatten(tensors: Iterable[Tensor]) -> Tensor:
    flat = [
        tensor.detach().movedim(1, -1).flatten() if tensor.ndim == 4 else tensor.detach().flatten() for tensor in tensors
    ]
    return torch.cat(flat) if flat else torch.zeros(0)


def _unflatten(part: Tensor, shape: torch.Size) -> Tensor:
    """A part of a row as a parameter; the inverse of `_flatten`."""
    if len(shape) != 4:
        return part.view(shape)
    out, channels, height, width = shape
    return part.view(out, height, width, channels).movedim(-1, 1)
