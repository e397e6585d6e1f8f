"""Archives of format 1, whose loader had networks of its own: their shape and weights as `workers.plain` names them.

Such an archive still predicts by the loader inside it; this is for studies that begin with its network, and for ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from workers.plain.network import Shape, settings_of


def upgraded(
    about: Mapping[str, Any], preprocessing: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """recipe.json, preprocessing.json and the weights of an archive of format 1, as format 2 has them."""
    model = about["model"]
    named = _perceptron(model, weights) if model["family"] == "mlp" else dict(weights)
    return {**about, "format": 2, "model": _shape(model).to_json()}, _preprocessing(preprocessing), named


def _shape(model: Mapping[str, Any]) -> Shape:
    renamed = {
        **model,
        "normalization_groups": model["groups"],
        "normalization_position": "after" if model.get("norm_after") else "before",
        "skip_connections": model.get("shortcuts", False),
        "embedding": max((width for _, width in model.get("embeddings", ())), default=0),
    }
    recipe = {name: renamed[name] for name in ("family", *settings_of(model["family"])) if name in renamed}
    inputs = [model["inputs"]] if model["family"] == "mlp" else model["inputs"]
    categories = [levels for levels, _ in model.get("embeddings", ())]
    return Shape.of(recipe, inputs, model["outputs"], categories)


def _perceptron(model: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layers were called linear1, norm1, …; the norm of a weight that was normalized becomes its gain again."""
    named: dict[str, Tensor] = {}
    for name, value in weights.items():
        layer, _, own = name.partition(".")
        kind = layer.rstrip("0123456789")
        if kind not in ("linear", "norm"):
            named[name] = value
            continue
        place = 0 if kind == "linear" else 2 if model.get("norm_after") else 1
        stem = f"blocks.{int(layer.removeprefix(kind)) - 1}.{place}"
        if model["normalization"] == "weight" and own == "weight":
            named[f"{stem}.weight_g"] = value.norm(dim=1, keepdim=True)
            named[f"{stem}.weight_v"] = value
        else:
            named[f"{stem}.{own}"] = value
    return named


def _preprocessing(fitted: Mapping[str, Any]) -> dict[str, Any]:
    """The first archives did not give the number of codes of a category."""
    if fitted["kind"] != "table" or "sizes" in fitted["words"]:
        return dict(fitted)
    sizes = [max(levels.values(), default=-1) + 1 for levels in fitted["words"]["levels"]]
    return {**fitted, "words": {**fitted["words"], "sizes": sizes}}
