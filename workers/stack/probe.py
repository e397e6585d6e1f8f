"""The trial of a module of theirs on a real batch: whether it is a network, and whether its lanes can be stacked.

Two lanes with weights of their own are computed as one and each by itself; outputs, gradients and running statistics must
be equal, in training and in evaluation. A shape is tried once with the same data. Shapes: `b` examples.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workers.plain.foreign import Foreign, ModuleFault, sentence
from workers.plain.network import Shape, initialize
from workers.stack.device_data import DeviceData
from workers.stack.flat import FlatModel
from workers.stack.memory import free_bytes, is_out_of_memory

_ROWS = 16
_COPIES = 5
"""Of the weights in training: themselves, their gradient, two moments, the best ones."""
_RATE = 0.3


@dataclass(frozen=True)
class Verdict:
    """``fault``: why it can't be trained at all; ``separate``: why lanes are trained one by one; ``traceable``: whether a
    pass is always the same computation, so that there may be programs: it draws no random numbers by itself, and can be
    stacked where that is of any use.
    """

    fault: str | None = None
    separate: str | None = None
    traceable: bool = True


def verdict(shape: Shape, data: DeviceData) -> Verdict:
    """What the trial of a shape on some data has shown; networks of ours are tried in the tests."""
    if shape.module is None:
        return Verdict()
    if shape not in data.verdicts:
        data.verdicts[shape] = _tried(shape, data)
    found: Verdict = data.verdicts[shape]
    return found


def _tried(shape: Shape, data: DeviceData) -> Verdict:
    try:
        _check_size(shape, data.device)
        probe = _Probe(FlatModel(shape, data.device), data)
        before = _generators()
        separate = probe.reason()
        same = _generators() == before and (separate is None or not probe.model.stacks)
        return Verdict(separate=separate, traceable=same)
    except ModuleFault as fault:
        return Verdict(fault=str(fault))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return Verdict(fault=f"{shape.module} needs more memory than this worker has: {sentence(error)}")
        raise


def _generators() -> tuple[object, ...]:
    """The states of the generators of random numbers that a module may use."""
    kind, numbers, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), kind, np.asarray(numbers).tolist(), *rest


def _check_size(shape: Shape, device: torch.device) -> None:
    """Count its parameters without making them, where it can be built so."""
    try:
        count = FlatModel(shape, torch.device("meta")).parameters
    except ModuleFault:
        return  # it is told by what builds it in earnest
    needed, there = 4 * _COPIES * count, free_bytes(device)
    if needed > there:
        sizes = f"{needed / 2**30:.1f} GiB in training; this worker has {there / 2**30:.1f} GiB"
        raise ModuleFault(f"{shape.module} has {count:,} parameters, which take {sizes}")


class _Probe:
    def __init__(self, model: FlatModel, data: DeviceData) -> None:
        self.model = model
        assert isinstance(model.template, Foreign), "networks of ours need no trial"
        self.name, self.outputs = model.template.name, data.outputs
        rows = data.train[0][: min(_ROWS, data.train_rows)]
        self.x = data.x[rows].expand(2, len(rows), *data.inputs)
        if data.start is not None:
            model.template.fitting(data.start)
        lanes = []
        for seed in (1, 2):
            initialize(model.template, {}, seed)
            lanes.append(model.rows())
        self.weights, self.stats = (torch.stack(each).to(data.device) for each in zip(*lanes, strict=True))
        self.rates = torch.full((2, model.dropouts), _RATE, device=data.device)
        self.keys = torch.arange(1, 2 * model.dropouts + 1, dtype=torch.int32, device=data.device).view(2, -1)

    def reason(self) -> str | None:
        """Why its lanes can't be stacked; None if they can.

        Raises:
            ModuleFault: It raises an error, or returns what no network returns.
        """
        constants = {
            name: value.clone() for name, value in self.model.module.named_buffers() if value.dtype != torch.float32
        }
        training, evaluation = ([self._alone(lane, train=mode) for lane in (0, 1)] for mode in (True, False))
        for name, value in self.model.module.named_buffers():
            if name in constants and not torch.equal(constants[name], value):
                raise ModuleFault(f"{self.name} changes its buffer {name}, which is not of float32, so it can't be kept")
        if not self.model.stacks:
            return "convolutions are fastest one network at a time on a CPU"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # torch warns where it would go lane by lane after all
                together = (self._stacked(train=True), self._stacked(train=False))
        except Exception as error:  # whatever it does that can't be stacked
            if is_out_of_memory(error):
                raise
            return f"its lanes can't be computed as one: {sentence(error).split('. ')[0]}"
        for alone, stacked in zip((training, evaluation), together, strict=True):
            if not all(_close(torch.stack(own), both) for own, both in zip(zip(*alone, strict=True), stacked, strict=True)):
                return "its stacked outputs or gradients differ from separate ones"
        return None

    def _alone(self, lane: int, *, train: bool) -> tuple[Tensor, ...]:
        """Output, gradient and statistics of one lane."""
        own = slice(lane, lane + 1)
        try:
            found = self._computed(own, train=train)
        except Exception as error:  # theirs, of whatever kind
            if isinstance(error, ModuleFault) or is_out_of_memory(error):
                raise
            raise ModuleFault(f"{self.name} raised in forward: {sentence(error)}") from error
        return tuple(value[0] for value in found)

    def _stacked(self, *, train: bool) -> tuple[Tensor, ...]:
        return self._computed(slice(0, 2), train=train)

    def _computed(self, lanes: slice, *, train: bool) -> tuple[Tensor, ...]:
        self.model.module.train(train)
        given = [value[lanes] for value in (self.weights, self.stats, self.rates, self.keys, self.x)]
        with torch.enable_grad():
            weights = given[0].detach().requires_grad_()
            out, stats = self.model.forward(weights, *given[1:])
            self._check(out)
            (gradient,) = torch.autograd.grad(out.square().sum(), weights)
        return out.detach(), gradient, stats.detach()

    def _check(self, out: object) -> None:
        expected = (self.x.shape[1], self.outputs)
        if not isinstance(out, Tensor) or tuple(out.shape[1:]) != expected:
            found = tuple(out.shape[1:]) if isinstance(out, Tensor) else type(out).__name__
            raise ModuleFault(f"{self.name} returns {found} for {expected[0]} examples, not {expected} (rows, outputs)")


def _close(alone: Tensor, stacked: Tensor) -> bool:
    scale = float(alone.nan_to_num().abs().max()) if alone.numel() else 0.0
    return torch.allclose(alone, stacked, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)
