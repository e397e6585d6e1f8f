"""Layers that several networks have, and the dropout that is handed to them.

A network asks for its dropout layers instead of making them, so that each caller gets what it needs: none for predictions,
`nn.Dropout` at the recipe's rates for ordinary training (`dropout_of`), one with a rate and a key per lane in a stack.
Shapes: `b` examples, `d` features, `c` channels, `h`, `w` pixels.
References: Srivastava et al., "Dropout", JMLR 15 (2014); Tompson et al., "Efficient Object Localization Using Convolutional
Networks" (CVPR 2015) for the dropout of channels; Salimans and Kingma, "Weight Normalization" (2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Draw = Callable[[Tensor], None]
"""Overwrites a weight with initial values."""

_NEIGHBOURS = 5
"""Channels that local response normalization looks at (Krizhevsky et al. 2012)."""


class MakesDropout(Protocol):
    """Makes a dropout layer at the rate of ``setting``, of hidden layer ``layer`` (0-based) where the rate is one per layer.

    ``channels``: it drops whole channels of images, as `nn.Dropout2d`.
    """

    def __call__(self, setting: str, layer: int = 0, *, channels: bool = False) -> nn.Module:
        """A new layer."""


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, buffers that no state dict has included; a parameter with two names once."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def no_dropout(setting: str, layer: int = 0, *, channels: bool = False) -> nn.Module:
    """For networks that only predict."""
    return nn.Identity()


def rate_of(recipe: Mapping[str, Any], setting: str, layer: int = 0) -> float:
    """The rate of a dropout layer; a setting that the recipe lacks is off.

    >>> rate_of({"dropout": (0.1, 0.5)}, "dropout", 1), rate_of({}, "input_dropout")
    (0.5, 0.0)
    """
    value = recipe.get(setting) or 0.0
    return float(value[layer] if isinstance(value, tuple | list) else value)


def dropout_of(recipe: Mapping[str, Any]) -> MakesDropout:
    """Torch's own dropout at the rates of a recipe."""

    def make(setting: str, layer: int = 0, *, channels: bool = False) -> nn.Module:
        rate = rate_of(recipe, setting, layer)
        if rate == 0.0:
            return nn.Identity()
        return nn.Dropout2d(rate) if channels else nn.Dropout(rate)

    return make


class WeightNorm(nn.Module):
    """A weight w = g · v / ‖v‖, one norm per unit, and a bias, equal to torch's `weight_norm` of the layer.

    torch's own parametrization calls a fused kernel that `vmap` can only run one lane at a time.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.empty(shape[0], *(1 for _ in shape[1:])))
        self.weight_v = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0]))

    @torch.no_grad()
    def initialize(self, draw: Draw, generator: torch.Generator) -> None:
        """Draw the effective weight; the bias becomes zero."""
        weight = torch.empty(self.weight_v.shape)
        draw(weight)
        self.adopt(weight)
        self.bias.zero_()

    @torch.no_grad()
    def adopt(self, weight: Tensor) -> None:
        """Take ``weight`` (units, ...) as the effective weight."""
        self.weight_v.copy_(weight)
        self.weight_g.copy_(_norms(weight))

    @property
    def weight(self) -> Tensor:
        """The effective weight (units, ...)."""
        return self.weight_v * (self.weight_g / _norms(self.weight_v))


def _norms(weight: Tensor) -> Tensor:
    """(units, 1, ...)."""
    norms: Tensor = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
    return norms


class WeightNormLinear(WeightNorm):
    """(b, in) to (b, out)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__((out_features, in_features))

    def forward(self, x: Tensor) -> Tensor:
        """(b, in) to (b, out)."""
        return F.linear(x, self.weight, self.bias)


class WeightNormConv2d(WeightNorm):
    """A convolution that keeps the resolution but for its stride."""

    def __init__(self, before: int, after: int, size: int, stride: int) -> None:
        super().__init__((after, before, size, size))
        self._stride, self._padding = stride, size // 2

    def forward(self, x: Tensor) -> Tensor:
        """(b, before, h, w) to (b, after, ⌈h/stride⌉, ⌈w/stride⌉)."""
        if self._padding == 0:  # of one pixel; see `workers.stack.flat`, which does so with other convolutions
            return F.conv2d(x[..., :: self._stride, :: self._stride], self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias, self._stride, self._padding)


def linear(in_features: int, out_features: int, normalization: str, *, bias: bool = True) -> nn.Module:
    """A linear layer, reparametrized under weight normalization."""
    if normalization == "weight":
        return WeightNormLinear(in_features, out_features)
    return nn.Linear(in_features, out_features, bias=bias)


def convolution(before: int, after: int, normalization: str, *, size: int = 3, stride: int = 1) -> nn.Module:
    """A convolution that keeps the resolution but for its stride, reparametrized under weight normalization."""
    if normalization == "weight":
        return WeightNormConv2d(before, after, size, stride)
    # A normalization with gain and shift of its own takes any bias away again, or has it twice.
    bias = normalization in ("none", "local_response")
    return nn.Conv2d(before, after, size, stride, size // 2, bias=bias)


MakesNorm = Callable[[int, int], nn.Module]
"""Makes a normalization of a number of units or channels, and a number of groups if it has any."""

FEATURE_NORMS: Mapping[str, MakesNorm] = {
    "none": lambda width, groups: nn.Identity(),
    "weight": lambda width, groups: nn.Identity(),
    "batch": lambda width, groups: nn.BatchNorm1d(width),
    "layer": lambda width, groups: nn.LayerNorm(width),
    "group": lambda width, groups: nn.GroupNorm(math.gcd(groups, width), width),
}
"""Normalizations of features (b, d)."""

CHANNEL_NORMS: Mapping[str, MakesNorm] = {
    "none": lambda channels, groups: nn.Identity(),
    "weight": lambda channels, groups: nn.Identity(),
    "batch": lambda channels, groups: nn.BatchNorm2d(channels),
    "layer": lambda channels, groups: nn.GroupNorm(1, channels),
    "instance": lambda channels, groups: nn.GroupNorm(channels, channels),
    "group": lambda channels, groups: nn.GroupNorm(math.gcd(groups, channels), channels),
    "local_response": lambda channels, groups: nn.LocalResponseNorm(_NEIGHBOURS),
}
"""Normalizations of channels (b, c, h, w); layer and instance normalization are that of 1 group and of c groups."""

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "mish": nn.Mish,
}
