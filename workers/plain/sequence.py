"""Networks for series: layers of gated recurrent units, or of a transformer encoder; pooling over time; a linear head.

Shapes: `b` series, `t` steps, `c` channels, `d` units. **Padding is NaN**: a step with a NaN in it is no step, so a batch
needs no lengths beside it, and whatever mixes or masks inputs before they reach the network keeps padding what it is.
References: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014); Vaswani et al., "Attention Is
All You Need" (2017), pre-norm (Xiong et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import ACTIVATIONS, Draw, MakesDropout, no_dropout

_BATCH_NORM_EPS, _BATCH_NORM_MOMENTUM = 1e-5, 0.1
_LONGEST_WAVE = 10000.0


class StepBatchNorm(nn.Module):
    """Batch normalization over all real steps of a batch: `nn.BatchNorm1d` of these steps alone."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Gain one, shift zero, statistics as before any batch."""
        for ones, zeros in ((self.weight, self.bias), (self.running_var, self.running_mean)):
            ones.fill_(1.0)
            zeros.zero_()

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(b, t, d) and ``real`` (b, t) to (b, t, d)."""
        mean, variance = self.running_mean, self.running_var
        if self.training:
            counted = real[..., None].to(x.dtype)
            steps = counted.sum()
            mean = (x * counted).sum((0, 1)) / steps
            variance = ((x - mean).square() * counted).sum((0, 1)) / steps
            unbiased = variance.detach() * steps / (steps - 1.0).clamp(min=1.0)
            self.running_mean.mul_(1.0 - _BATCH_NORM_MOMENTUM).add_(_BATCH_NORM_MOMENTUM * mean.detach())
            self.running_var.mul_(1.0 - _BATCH_NORM_MOMENTUM).add_(_BATCH_NORM_MOMENTUM * unbiased)
        return (x - mean) * (variance + _BATCH_NORM_EPS).rsqrt() * self.weight + self.bias


class StepNorm(nn.Module):
    """Normalization of the units of every step."""

    def __init__(self, width: int, normalization: str, groups: int) -> None:
        super().__init__()
        made = STEP_NORMS[normalization](width, groups)
        self.batch = made if isinstance(made, StepBatchNorm) else None
        self.own = None if isinstance(made, StepBatchNorm | None) else made

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(b, t, d) and ``real`` (b, t) to (b, t, d)."""
        if self.batch is not None:
            normed: Tensor = self.batch(x, real)
            return normed
        if self.own is None:
            return x
        flat: Tensor = self.own(x.flatten(0, 1))
        return flat.view(x.shape)


STEP_NORMS: Mapping[str, Callable[[int, int], nn.Module | None]] = {
    "none": lambda width, groups: None,
    "batch": lambda width, groups: StepBatchNorm(width),
    "layer": lambda width, groups: nn.LayerNorm(width),
    "group": lambda width, groups: nn.GroupNorm(math.gcd(groups, width), width),
}


class Gru(nn.Module):
    """One layer of gated recurrent units, with the parameters and equations of `nn.GRU`, which `vmap` can't run.

    A step that is padding leaves the state as it is, so the last state is that of the last real step.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.empty(3 * width, inputs))
        self.weight_hh_l0 = nn.Parameter(torch.empty(3 * width, width))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(3 * width))
        self.bias_hh_l0 = nn.Parameter(torch.zeros(3 * width))
        self.width = width

    @torch.no_grad()
    def initialize(self, draw: Draw, generator: torch.Generator) -> None:
        """Draw each gate's weights, orthogonal ones where they meet the state (Saxe et al. 2014); biases become zero."""
        for gate in self.weight_ih_l0.chunk(3):
            draw(gate)
        for gate in self.weight_hh_l0.chunk(3):
            nn.init.orthogonal_(gate, generator=generator)
        self.bias_ih_l0.zero_()
        self.bias_hh_l0.zero_()

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(b, t, inputs) and ``real`` (b, t) to the states (b, t, width)."""
        from_input = F.linear(x, self.weight_ih_l0, self.bias_ih_l0)
        state = x.new_zeros(x.shape[0], self.width)
        states = []
        for step, is_real in zip(from_input.unbind(1), real[..., None].unbind(1), strict=True):
            reset, update, new = step.chunk(3, 1)
            reset_h, update_h, new_h = F.linear(state, self.weight_hh_l0, self.bias_hh_l0).chunk(3, 1)
            candidate = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
            after = candidate + torch.sigmoid(update + update_h) * (state - candidate)
            state = torch.where(is_real, after, state)
            states.append(state)
        return torch.stack(states, 1)


class RecurrentLayer(nn.Module):
    """Gated recurrent units, normalization of their states, dropout."""

    def __init__(
        self, inputs: int, width: int, layer: int, dropout: MakesDropout, *, normalization: str, groups: int
    ) -> None:
        super().__init__()
        self.gru = Gru(inputs, width)
        self.norm = StepNorm(width, normalization, groups)
        self.dropout = dropout("dropout", layer)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(b, t, inputs) and ``real`` (b, t) to (b, t, width)."""
        out: Tensor = self.dropout(self.norm(self.gru(x, real), real))
        return out


class AttentionLayer(nn.Module):
    """Self-attention and a perceptron of four times the width, each after a normalization, with a shortcut around them."""

    def __init__(
        self,
        inputs: int,
        width: int,
        layer: int,
        dropout: MakesDropout,
        *,
        heads: int,
        activation: str,
        normalization: str,
        groups: int,
    ) -> None:
        super().__init__()
        self.heads = math.gcd(heads, width)
        self.project = nn.Identity() if inputs == width else nn.Linear(inputs, width)
        self.norm1 = StepNorm(width, normalization, groups)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.dropout1 = dropout("dropout", layer)
        self.norm2 = StepNorm(width, normalization, groups)
        self.widen = nn.Linear(width, 4 * width)
        self.activation = ACTIVATIONS[activation]()
        self.narrow = nn.Linear(4 * width, width)
        self.dropout2 = dropout("dropout", layer)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(b, t, inputs) and ``real`` (b, t) to (b, t, width)."""
        x = self.project(x)
        x = x + self.dropout1(self.merge(self._attend(self.norm1(x, real), real)))
        out: Tensor = x + self.dropout2(self.narrow(self.activation(self.widen(self.norm2(x, real)))))
        return out

    def _attend(self, x: Tensor, real: Tensor) -> Tensor:
        """Scaled dot-product attention to all real steps."""
        b, t, d = x.shape
        parts = self.query_key_value(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        scores = query @ key.transpose(2, 3) / math.sqrt(d // self.heads)
        # The lowest number, not minus infinity, which would make the softmax of a series without a step NaN.
        scores = scores.masked_fill(~real[:, None, None, :], torch.finfo(scores.dtype).min)
        attended: Tensor = (scores.softmax(3) @ value).transpose(1, 2).reshape(b, t, d)
        return attended


def positions(steps: int, width: int, device: torch.device) -> Tensor:
    """(steps, width) sines and cosines of wave lengths from 2π to 10000·2π (Vaswani et al. 2017, section 3.5)."""
    wave = torch.arange(0, width, 2, device=device)
    angle = torch.arange(steps, device=device)[:, None] * torch.exp(-math.log(_LONGEST_WAVE) * wave / width)
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :width]


CELLS: Mapping[str, bool] = {"gru": False, "transformer": True}
"""Whether a layer attends to all steps at once, rather than going from one to the next."""


class SequenceModel(nn.Module):
    """Shapes: (b, t, c), padded with NaN, to (b, outputs).

    The keywords but ``categories`` (of which series have none) and ``dropout`` are settings of a recipe.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        *,
        widths: Sequence[int] = (64,),
        activation: str = "relu",
        normalization: str = "none",
        normalization_groups: int = 8,
        cell: str = "gru",
        heads: int = 4,
        pooling: str = "mean",
        categories: Sequence[int] = (),
        dropout: MakesDropout = no_dropout,
    ) -> None:
        super().__init__()
        steps, channels = inputs
        attends = CELLS[cell]
        self.input_dropout = dropout("input_dropout")
        self.embed = nn.Linear(channels, widths[0]) if attends else nn.Identity()
        self.placed = attends
        self.layers = nn.ModuleList()
        before = widths[0] if attends else channels
        norm: dict[str, Any] = {"normalization": normalization, "groups": normalization_groups}
        for layer, width in enumerate(widths):
            if attends:
                attention: dict[str, Any] = {"heads": heads, "activation": activation}
                self.layers.append(AttentionLayer(before, width, layer, dropout, **attention, **norm))
            else:
                self.layers.append(RecurrentLayer(before, width, layer, dropout, **norm))
            before = width
        self.pooled = POOLING[pooling]
        self.head_dropout = dropout("head_dropout")
        self.head = nn.Linear(before, outputs)
        most = max(channels, *widths)
        self.largest_activation = steps * max(4 * most, heads * steps) if attends else 3 * steps * most

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, c) to logits, or standardized predictions of a regression, (b, outputs)."""
        real = ~x.isnan().any(2)
        x = self.embed(self.input_dropout(torch.where(real[..., None], x, 0.0)))
        if self.placed:
            x = x + positions(x.shape[1], x.shape[2], x.device)
        for layer in self.layers:
            x = layer(x, real)
        out: Tensor = self.head(self.head_dropout(self.pooled(x, real)))
        return out

    @staticmethod
    def reduced(settings: Mapping[str, Any], categories: Sequence[int]) -> dict[str, Any]:
        """The settings without what makes no difference to the graph: recurrent units have no activation to choose."""
        return {
            name: value for name, value in settings.items() if name != "activation" or settings.get("cell") == "transformer"
        }


def _mean(x: Tensor, real: Tensor) -> Tensor:
    counted = real[..., None].to(x.dtype)
    return (x * counted).sum(1) / counted.sum(1).clamp(min=1.0)


def _maximum(x: Tensor, real: Tensor) -> Tensor:
    highest = x.masked_fill(~real[..., None], torch.finfo(x.dtype).min).amax(1)
    return torch.where(real.any(1)[:, None], highest, 0.0)


def _last(x: Tensor, real: Tensor) -> Tensor:
    # 1 at the last real step only: a step is last if none follows.
    following = real.to(torch.int32).flip(1).cumsum(1).flip(1)
    last = (real & (following == 1))[..., None].to(x.dtype)
    return (x * last).sum(1)


POOLING: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": _mean, "max": _maximum, "last": _last}
"""(b, t, d) to (b, d): the mean or the maximum over the real steps (b, t), or the last of them; 0 without a step."""
