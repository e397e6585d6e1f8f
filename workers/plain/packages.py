"""Networks of well-known packages: `torchvision.models:NAME` and `timm:NAME`, with random weights.

They take their numbers of inputs and outputs in ways of their own; here every one is called as
``make(inputs, outputs, **arguments)`` for images (channels, height, width). The packages are imported when one is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

Makes = Callable[..., nn.Module]


def _of_torchvision(name: str) -> Makes:
    models = importlib.import_module("torchvision.models")
    if name not in models.list_models():
        raise ValueError(f"torchvision has no model {name} for images")

    def make(inputs: Sequence[int], outputs: int) -> nn.Module:
        return _for_channels(models.get_model(name, weights=None, num_classes=outputs), inputs)

    make.__doc__ = models.get_model_builder(name).__doc__
    return make


def _of_timm(name: str) -> Makes:
    timm = importlib.import_module("timm")
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name}")

    def make(inputs: Sequence[int], outputs: int, *, drop_path_rate: float = 0.0) -> nn.Module:
        config = timm.get_pretrained_cfg(name)
        size = {"img_size": tuple(inputs[1:])} if config is not None and config.fixed_input_size else {}
        paths = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
        made: nn.Module = timm.create_model(name, pretrained=False, in_chans=inputs[0], num_classes=outputs, **size, **paths)
        return made

    make.__doc__ = f"{name} of timm; networks with stochastic depth take `drop_path_rate`."
    return make


def _for_channels(network: nn.Module, inputs: Sequence[int]) -> nn.Module:
    """A network for images of three channels with a first convolution for as many as there are."""
    first = next(((name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d)), None)
    if first is not None and first[1].in_channels != inputs[0]:
        name, layer = first
        parent, _, own = name.rpartition(".")
        shape: Any = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, 1, layer.bias is not None)
        setattr(network.get_submodule(parent), own, nn.Conv2d(inputs[0], layer.out_channels, *shape))
    return network


PACKAGES: Mapping[str, Callable[[str], Makes]] = {"torchvision.models": _of_torchvision, "timm": _of_timm}
"""By what stands before the colon; each raises ValueError for a name that its package does not have."""
