"""Layers whose hyperparameters are buffers, so that a stack of k modules has k values of each.

Shapes: `b` examples, `d` features; under `vmap` every buffer is one lane's. Knows nothing of studies or storage.
References: Srivastava et al., "Dropout", JMLR 15 (2014); Salimans and Kingma, "Weight Normalization" (2016).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.stack.hashing import happens


class LaneDropout(nn.Module):
    """Zero each activation with probability ``rate`` and rescale the rest; identity in eval mode.

    The mask is a hash of ``key`` (one per lane and update) and the element's index, so a lane drops the same units
    whatever its neighbours are. Both are buffers, not attributes: stacking k modules gives each lane its own. ``active``
    is for all lanes: off, no mask is computed, which is the same as a rate of 0 in every lane.
    """

    rate: Tensor
    key: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.active = True
        self.register_buffer("rate", torch.zeros(()), persistent=False)
        self.register_buffer("key", torch.zeros((), dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return self._dropped(x, x.shape)

    def _dropped(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """``x`` with a mask of ``shape``, which has to broadcast to that of ``x``."""
        if not (self.training and self.active):
            return x
        chance = 1.0 - self.rate
        keep = happens(chance, self.key, math.prod(shape)).view(shape)
        return torch.where(keep, x * (1.0 / chance), 0.0)


class LaneSpatialDropout(LaneDropout):
    """Zero whole channels of images (Tompson et al., CVPR 2015); as `nn.Dropout2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) to the same."""
        return self._dropped(x, (x.shape[0], x.shape[1], 1, 1))


class WeightNormLinear(nn.Module):
    """A linear layer with w = g · v / ‖v‖ (one norm per output unit), equal to torch's `weight_norm` of `nn.Linear`.

    torch's own parametrization calls a fused kernel that `vmap` can only run one lane at a time.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.empty(out_features, 1))
        self.weight_v = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    @torch.no_grad()
    def adopt(self, weight: Tensor) -> None:
        """Take ``weight`` (out, in) as the effective weight."""
        self.weight_v.copy_(weight)
        self.weight_g.copy_(weight.norm(dim=1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """(b, in) to (b, out)."""
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True))
        return F.linear(x, weight, self.bias)


def linear(in_features: int, out_features: int, normalization: str, *, bias: bool = True) -> nn.Module:
    """A linear layer, reparametrized under weight normalization."""
    if normalization == "weight":
        return WeightNormLinear(in_features, out_features)
    return nn.Linear(in_features, out_features, bias=bias)


ACTIVATION_NORMS = ("batch", "layer", "group")


def activation_norm(width: int, normalization: str, groups: int) -> nn.Module:
    """The normalization behind a linear layer of ``width`` units; identity for none and for weight normalization."""
    match normalization:
        case "batch":
            return nn.BatchNorm1d(width)
        case "layer":
            return nn.LayerNorm(width)
        case "group":
            return nn.GroupNorm(math.gcd(groups, width), width)
        case _:
            return nn.Identity()


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
}
