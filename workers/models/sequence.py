"""Models of series: layers of gated recurrent units, or of a transformer encoder; pooling over time; a linear head.

Shapes: `b` series, `t` steps, `c` channels, `d` units. **Padding is NaN**: a step with a NaN in it is no step, so a batch
needs no lengths beside it, and whatever mixes or masks inputs in front of the model keeps padding what it is.
References: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014); Vaswani et al., "Attention Is
All You Need" (2017), with normalization in front (Xiong et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.models.layers import ACTIVATIONS, LaneDropout

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
    """Normalization of the units of every step: none, batch, layer or group."""

    def __init__(self, width: int, normalization: str, groups: int) -> None:
        super().__init__()
        self.batch = StepBatchNorm(width) if normalization == "batch" else None
        self.own: nn.Module | None = None
        if normalization == "layer":
            self.own = nn.LayerNorm(width)
        elif normalization == "group":
            self.own = nn.GroupNorm(math.gcd(groups, width), width)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(b, t, d) and ``real`` (b, t) to (b, t, d)."""
        if self.batch is not None:
            normed: Tensor = self.batch(x, real)
            return normed
        if self.own is None:
            return x
        flat: Tensor = self.own(x.flatten(0, 1))
        return flat.view(x.shape)


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

    def __init__(self, inputs: int, width: int, *, normalization: str, groups: int) -> None:
        super().__init__()
        self.gru = Gru(inputs, width)
        self.norm = StepNorm(width, normalization, groups)
        self.dropout = LaneDropout()

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(b, t, inputs) to (b, t, width)."""
        out: Tensor = self.dropout(self.norm(self.gru(x, real), real))
        return out


class AttentionLayer(nn.Module):
    """Self-attention and a perceptron of four times the width, each around a shortcut with normalization in front."""

    def __init__(self, inputs: int, width: int, *, heads: int, activation: str, normalization: str, groups: int) -> None:
        super().__init__()
        self.heads = math.gcd(heads, width)
        self.project = nn.Identity() if inputs == width else nn.Linear(inputs, width)
        self.norm1 = StepNorm(width, normalization, groups)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.dropout1 = LaneDropout()
        self.norm2 = StepNorm(width, normalization, groups)
        self.widen = nn.Linear(width, 4 * width)
        self.activation = ACTIVATIONS[activation]()
        self.narrow = nn.Linear(4 * width, width)
        self.dropout2 = LaneDropout()

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(b, t, inputs) to (b, t, width)."""
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


class SequenceModel(nn.Module):
    """Shapes: (b, t, channels), padded with NaN, to (b, outputs).

    The dropout modules are ``input_dropout``, those of the layers and ``head_dropout``, in the order of a lane's rates.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        widths: Sequence[int],
        *,
        cell: str,
        heads: int,
        pooling: str,
        activation: str,
        normalization: str,
        groups: int,
    ) -> None:
        super().__init__()
        self.input_dropout = LaneDropout()
        self.embed = nn.Linear(channels, widths[0]) if cell == "transformer" else nn.Identity()
        self.placed = cell == "transformer"
        self.layers = nn.ModuleList()
        before = widths[0] if self.placed else channels
        for width in widths:
            if cell == "transformer":
                common = {"activation": activation, "normalization": normalization}
                self.layers.append(AttentionLayer(before, width, heads=heads, groups=groups, **common))
            else:
                self.layers.append(RecurrentLayer(before, width, normalization=normalization, groups=groups))
            before = width
        self.pooling = pooling
        self.head_dropout = LaneDropout()
        self.head = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or the standardized prediction of a regression."""
        real = ~x.isnan().any(2)
        x = self.embed(self.input_dropout(torch.where(real[..., None], x, 0.0)))
        if self.placed:
            x = x + positions(x.shape[1], x.shape[2], x.device)
        for layer in self.layers:
            x = layer(x, real)
        out: Tensor = self.head(self.head_dropout(pooled(x, real, self.pooling)))
        return out


def pooled(x: Tensor, real: Tensor, how: str) -> Tensor:
    """(b, t, d) to (b, d): the mean or the maximum over the real steps (b, t), or the last of them; 0 without a step."""
    counted = real[..., None].to(x.dtype)
    if how == "mean":
        return (x * counted).sum(1) / counted.sum(1).clamp(min=1.0)
    if how == "max":
        highest = x.masked_fill(~real[..., None], torch.finfo(x.dtype).min).amax(1)
        return torch.where(real.any(1)[:, None], highest, 0.0)
    # 1 at the last real step only: a step is last if none follows.
    following = real.to(torch.int32).flip(1).cumsum(1).flip(1)
    last = (real & (following == 1))[..., None].to(x.dtype)
    return (x * last).sum(1)
