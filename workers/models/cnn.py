"""A small residual network for images: a stem, stages of blocks, global pooling, a linear head.

Every stage but the first halves the resolution. Shapes: `b` images, `c` channels, `h`, `w` pixels. The dropout modules are
``input_dropout`` (pixels), one per stage (whole channels) and ``head_dropout``, in that order: the order of a lane's rates.
References: He et al., "Deep Residual Learning" (CVPR 2016); Tompson et al., "Efficient Object Localization Using
Convolutional Networks" (CVPR 2015) for the dropout of channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.models.layers import ACTIVATIONS, LaneDropout, LaneSpatialDropout

_NEIGHBOURS = 5
"""Channels that local response normalization looks at (Krizhevsky et al. 2012)."""


class WeightNormConv2d(nn.Module):
    """A convolution with w = g · v / ‖v‖, one norm per output channel; see `layers.WeightNormLinear`."""

    def __init__(self, before: int, after: int, size: int, stride: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.empty(after, 1, 1, 1))
        self.weight_v = nn.Parameter(torch.empty(after, before, size, size))
        self.bias = nn.Parameter(torch.zeros(after))
        self._stride, self._padding = stride, size // 2

    @torch.no_grad()
    def adopt(self, weight: Tensor) -> None:
        """Take ``weight`` (after, before, size, size) as the effective weight."""
        self.weight_v.copy_(weight)
        self.weight_g.copy_(_norms(weight))

    def forward(self, x: Tensor) -> Tensor:
        """(b, before, h, w) to (b, after, h/stride, w/stride)."""
        weight = self.weight_v * (self.weight_g / _norms(self.weight_v))
        return F.conv2d(x, weight, self.bias, self._stride, self._padding)


def _norms(weight: Tensor) -> Tensor:
    return weight.square().sum((1, 2, 3), keepdim=True).sqrt()


def convolution(before: int, after: int, normalization: str, *, size: int = 3, stride: int = 1) -> nn.Module:
    """A convolution that keeps the resolution but for its stride, reparametrized under weight normalization."""
    if normalization == "weight":
        return WeightNormConv2d(before, after, size, stride)
    # A normalization with gain and shift of its own takes any bias away again, or has it twice.
    bias = normalization in ("none", "local_response")
    return nn.Conv2d(before, after, size, stride, size // 2, bias=bias)


def channel_norm(channels: int, normalization: str, groups: int) -> nn.Module:
    """The normalization behind a convolution; layer and instance normalization are that of 1 group and of c groups."""
    match normalization:
        case "batch":
            return nn.BatchNorm2d(channels)
        case "layer":
            return nn.GroupNorm(1, channels)
        case "instance":
            return nn.GroupNorm(channels, channels)
        case "group":
            return nn.GroupNorm(math.gcd(groups, channels), channels)
        case "local_response":
            return nn.LocalResponseNorm(_NEIGHBOURS)
        case _:
            return nn.Identity()


def halving(how: str | None) -> nn.Module:
    """2x2 pooling; odd sizes are rounded up, as a convolution of stride 2 does it."""
    match how:
        case "max":
            return nn.MaxPool2d(2, ceil_mode=True)
        case "average":
            return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        case _:
            return nn.Identity()


class Block(nn.Module):
    """Two convolutions, with a shortcut around them if ``shortcuts``; ``halve``: how the resolution is halved, if it is."""

    def __init__(
        self,
        before: int,
        after: int,
        *,
        halve: str | None,
        shortcuts: bool,
        activation: str,
        normalization: str,
        groups: int,
    ) -> None:
        super().__init__()
        stride = 2 if halve == "strided" else 1
        self.pool = halving(halve)
        self.conv1 = convolution(before, after, normalization, stride=stride)
        self.norm1 = channel_norm(after, normalization, groups)
        self.conv2 = convolution(after, after, normalization)
        self.norm2 = channel_norm(after, normalization, groups)
        self.activation = ACTIVATIONS[activation]()
        self.shortcut: nn.Module | None = None
        if shortcuts:
            same = before == after and stride == 1
            self.shortcut = nn.Identity() if same else convolution(before, after, normalization, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(b, before, h, w) to (b, after, ⌈h/2⌉, ⌈w/2⌉), or with h and w as they were."""
        x = self.pool(x)
        out: Tensor = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        activated: Tensor = self.activation(out)
        return activated


class Cnn(nn.Module):
    """Shapes: (b, c, h, w) to (b, outputs). ``widths`` are the channels of the stages."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        widths: Sequence[int],
        *,
        blocks: int,
        shortcuts: bool,
        downsampling: str,
        pooling: str,
        activation: str,
        normalization: str,
        groups: int,
    ) -> None:
        super().__init__()
        self.input_dropout = LaneDropout()
        self.stem = nn.Sequential(
            convolution(channels, widths[0], normalization),
            channel_norm(widths[0], normalization, groups),
            ACTIVATIONS[activation](),
        )
        self.stages = nn.ModuleList()
        before = widths[0]
        for number, width in enumerate(widths):
            stage = nn.Sequential()
            for index in range(blocks):
                halve = downsampling if number and not index else None
                stage.append(
                    Block(
                        before,
                        width,
                        halve=halve,
                        shortcuts=shortcuts,
                        activation=activation,
                        normalization=normalization,
                        groups=groups,
                    )
                )
                before = width
            stage.append(LaneSpatialDropout())
            self.stages.append(stage)
        self.pooling = pooling
        self.head_dropout = LaneDropout()
        self.head = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or the standardized prediction of a regression."""
        x = self.stem(self.input_dropout(x))
        for stage in self.stages:
            x = stage(x)
        pooled = x.amax((2, 3)) if self.pooling == "max" else x.mean((2, 3))
        out: Tensor = self.head(self.head_dropout(pooled))
        return out
