"""What is put into a module of theirs: dropout layers in place of its own or after others, another normalization.

Shapes: `b` examples, `c` channels or features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .layers import MakesDropout

_GROUPS = 8
_CHANNEL_DROPOUTS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_NORMS_OF_FEATURES = (nn.LayerNorm, nn.RMSNorm)


def with_dropout(net: nn.Module, dropout: MakesDropout) -> list[nn.Module]:
    """Replace the dropout layers of a module, and return the new ones; one that is used at several places stays one."""
    made: dict[nn.Module, nn.Module] = {}
    for _, parent in list(net.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
                if child not in made:
                    made[child] = dropout("dropout", len(made), channels=isinstance(child, _CHANNEL_DROPOUTS))
                setattr(parent, name, made[child])
    return list(made.values())


class Drops:
    """A forward hook that is copied with its module, unlike a function."""

    def __init__(self, dropout: nn.Module) -> None:
        self._dropout = dropout

    def __call__(self, layer: nn.Module, inputs: Any, out: Any) -> Any:
        """The output, or the first of several, with dropout."""
        return self._dropout(out) if isinstance(out, Tensor) else (self._dropout(out[0]), *out[1:])


class AnyBatchNorm(_BatchNorm):
    """Batch normalization of (b, c, ...), with whatever axes."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number will do."""


class OfFeatures(nn.Module):
    """A normalization of (b, c, ...) in place of one over the last axis: of every position by itself."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) to the same."""
        out: Tensor = self.norm(x.reshape(-1, x.shape[-1])).view(x.shape)
        return out


NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch": AnyBatchNorm,
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "group": lambda channels: nn.GroupNorm(math.gcd(_GROUPS, channels), channels),
}
"""By what the normalizations of a module can be replaced, for their number of channels or features."""


def replace_norms(net: nn.Module, word: str) -> None:
    """Replace the normalization layers of a module by a type of `NORMS`, `own` by none."""
    if word == "own":
        return
    for _, parent in list(net.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _NORMS_OF_FEATURES) and len(child.normalized_shape) == 1:
                made = NORMS[word](child.normalized_shape[0])
                setattr(parent, name, made if word == "none" else OfFeatures(made))
            elif isinstance(child, _BatchNorm | _InstanceNorm):
                setattr(parent, name, NORMS[word](child.num_features))
            elif isinstance(child, nn.GroupNorm):
                setattr(parent, name, NORMS[word](child.num_channels))
