"""From a stack's module to ordinary PyTorch: the shape in plain values, and weights named as `loader` names its layers.

One function per family of networks; a family without one is refused rather than written wrongly. A perceptron becomes an
`nn.Sequential`: dropout is gone, and weight normalization is folded into its weights by the very expression of the forward
pass, so no prediction changes. Networks of other families keep their own modules, whose source goes into the archive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from service.errors import RegsearchError
from workers.models import ModelShape

Plain = tuple[dict[str, Any], dict[str, Tensor]]
_BLOCK = "blocks"


class CannotExport(RegsearchError):
    """The model can't be put into an archive; the message says why."""


def plain(family: str, shape: ModelShape, weights: Mapping[str, Tensor]) -> Plain:
    """A network as the loader builds it: `model` of recipe.json, and the state dict of an `nn.Sequential`.

    Raises:
        CannotExport: There is no loader for this family.
    """
    if family not in _FAMILIES:
        raise CannotExport(f"networks of the family {family!r} can't be downloaded yet, only {', '.join(_FAMILIES)}")
    return _FAMILIES[family](shape, weights)


def _mlp(shape: ModelShape, weights: Mapping[str, Tensor]) -> Plain:
    (inputs,) = shape.inputs
    described = {
        "family": "mlp",
        "inputs": inputs,
        "outputs": shape.outputs,
        "widths": list(shape.widths),
        "activation": shape.activation,
        "normalization": shape.normalization,
        "groups": shape.groups,
        "norm_after": shape.norm_after,
        "shortcuts": shape.shortcuts,
        "embeddings": [list(size) for size in shape.embeddings],
    }
    named: dict[str, Tensor] = {}
    for name, value in weights.items():
        if not name.startswith(_BLOCK):
            named[name] = value
            continue
        _, block, place, own = name.split(".", maxsplit=3)
        layer = f"{'linear' if place == '0' else 'norm'}{int(block) + 1}"
        if own == "weight_v":
            gain = weights[f"{_BLOCK}.{block}.{place}.weight_g"]
            named[f"{layer}.weight"] = value * (gain / value.norm(dim=1, keepdim=True))
        elif own not in ("weight_g", "num_batches_tracked"):
            named[f"{layer}.{own}"] = value
    return described, {name: value.detach().cpu().contiguous() for name, value in named.items()}


def stacked(described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `plain`: weights as a stack's module names them. Of a weight the norm becomes its gain again."""
    if described["family"] != "mlp":
        return dict(weights)
    named: dict[str, Tensor] = {}
    for name, value in weights.items():
        layer, _, own = name.partition(".")
        kind = layer.rstrip("0123456789")
        if kind not in ("linear", "norm"):
            named[name] = value
            continue
        place = 0 if kind == "linear" else 2 if described["norm_after"] else 1
        stem = f"{_BLOCK}.{int(layer.removeprefix(kind)) - 1}.{place}"
        if described["normalization"] == "weight" and own == "weight":
            named[f"{stem}.weight_g"] = value.norm(dim=1, keepdim=True)
            named[f"{stem}.weight_v"] = value
        else:
            named[f"{stem}.{own}"] = value
    return named


def _as_it_is(shape: ModelShape, weights: Mapping[str, Tensor]) -> Plain:
    """A network whose own modules are in the archive."""
    kept = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    return asdict(shape), {name: value.detach().cpu().contiguous() for name, value in kept.items()}


_FAMILIES: Mapping[str, Callable[[ModelShape, Mapping[str, Tensor]], Plain]] = {
    "mlp": _mlp,
    "cnn": _as_it_is,
    "sequence": _as_it_is,
}
