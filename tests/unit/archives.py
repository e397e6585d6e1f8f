"""Data and untrained networks for the tests of archives and of what is made of them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor

from service.spec import Recipe
from workers.archive import Trained
from workers.archive.program import Training
from workers.archive.read import read_archive
from workers.data import Fold, PrepareOptions, RawTable, prepare
from workers.data.split import Division, split_rows
from workers.plain.embedding import embedding_width
from workers.plain.layers import WeightNormConv2d, WeightNormLinear
from workers.plain.network import Shape, build, initialize

ABOUT: dict[str, Any] = {
    "study": {"id": 7, "name": "people"},
    "task": "classification",
    "target": "class",
    "classes": [],
    "metric": "accuracy",
    "direction": "maximize",
    "chosen": {"of": "trial 3", "seed_index": 0, "seed": 7, "epoch": 2, "validation": 0.5, "rule": "It was the only one."},
    "scores": {"this_network": 0.5, "valid": {"mean": 0.5, "std": 0.1, "n": 5}, "test": None},
    "data": {"rows": 200, "hash": "0123456789abcdef"},
}


def people(path: Path, rows: int = 200) -> Path:
    """A file with everything that makes preprocessing hard: gaps, rare words, numbers as categories, booleans."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, rows).astype(float),
            "income": rng.lognormal(3, 2, rows),
            "job": rng.choice(["a", "b", "Ä, quoted", "c"], rows),
            "zip": rng.integers(1, 60, rows),
            "member": rng.random(rows) < 0.5,
            "mixed": rng.choice(["1", "1.50", "x", "true"], rows),
            "class": rng.choice(["yes", "no", "perhaps"], rows),
        }
    )
    frame.loc[rng.random(rows) < 0.2, "age"] = np.nan
    frame.loc[rng.random(rows) < 0.2, "job"] = np.nan
    frame.loc[rng.random(rows) < 0.1, "zip"] = np.nan
    frame.to_csv(path, index=False)
    return path


def a_fold(table: RawTable, options: PrepareOptions | None = None) -> Fold:
    return prepare(table, split_rows(table, Division(1)), 0, options or PrepareOptions(max_levels=20, flag_missing=True))


def untrained(fold: Fold, classes: int, family: str = "mlp", **settings: Any) -> Trained:
    """A network with weights and running statistics that are no neutral elements."""
    recipe = Recipe({"family": family, "widths": (24, 24, 12), **settings})
    categories = fold.preprocessor["words"]["sizes"] if fold.preprocessor["kind"] == "table" else ()
    shape = Shape.of(recipe.effective(), fold.x_train.shape[1:], classes, categories)
    module = build(shape)
    initialize(module, recipe, 5, torch.from_numpy(fold.x_train))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.dtype == torch.float32 and value.ndim == 1:
                value.copy_(torch.rand(value.shape, generator=generator) + (0.5 if name.endswith("weight") else 0.1))
        for layer in module.modules():
            if isinstance(layer, WeightNormLinear | WeightNormConv2d):
                layer.weight_g.mul_(1.7)
    hyper = {name for name, _ in module.named_buffers() if name.endswith(("num_batches_tracked", ".rate", ".key"))}
    weights = {name: value for name, value in module.state_dict().items() if name not in hyper}
    training = Training(target="class", epochs=3, watched="accuracy", patience=2)
    return Trained(recipe, shape, [weights], fold, training)


def shaped(path: Path, layout: str) -> Path:
    """Images, or series of several lengths, of three classes."""
    rng = np.random.default_rng(2)
    y = np.arange(60) % 3
    if layout == "image":
        np.savez(path, x=rng.integers(0, 255, (60, 8, 9, 3), dtype=np.uint8), y=y)
    else:
        x = rng.normal(2.0, 3.0, (60, 7, 2)).astype(np.float32)
        x[rng.random(x.shape) < 0.1] = np.nan
        np.savez(path, x=x, y=y, len=rng.integers(2, 8, 60))
    return path


def in_format_1(archive: bytes) -> bytes:
    """A perceptron's archive as the first format had it: layers have names of their own, weight norms are folded."""
    about, fitted, weights = read_archive(archive)
    model, named = dict(about["model"]), dict[str, Tensor]()
    after = model["settings"].get("normalization_position") == "after"
    for name, value in weights.items():
        if not name.startswith("blocks."):
            named[name] = value
            continue
        _, block, place, own = name.split(".")
        layer = f"{'linear' if place == '0' else 'norm'}{int(block) + 1}"
        if own == "weight_v":
            gain = weights[f"blocks.{block}.{place}.weight_g"]
            named[f"{layer}.weight"] = value * (gain / value.norm(dim=1, keepdim=True))
        elif own != "weight_g":
            named[f"{layer}.{own}"] = value
    settings = model.pop("settings")
    widest = settings.get("embedding", 0)
    described = {
        "family": "mlp",
        "inputs": model["inputs"][0],
        "outputs": model["outputs"],
        "widths": settings["widths"],
        "activation": settings.get("activation", "relu"),
        "normalization": settings.get("normalization", "none"),
        "groups": settings.get("normalization_groups", 8),
        "norm_after": after,
        "shortcuts": settings.get("skip_connections", False),
        "embeddings": [[levels, embedding_width(levels, widest)] for levels in model["categories"] if widest],
    }
    words = {name: value for name, value in fitted["words"].items() if name != "sizes"}
    document = {**about, "format": 1, "model": described}
    return _zipped(document, {**fitted, "words": {**words, "ordinal": False}}, named)


def _zipped(about: Mapping[str, Any], fitted: Mapping[str, Any], weights: Mapping[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as files:
        files.writestr("recipe.json", json.dumps(about))
        files.writestr("preprocessing.json", json.dumps(fitted))
        files.writestr("weights.safetensors", save(dict(weights)))
    return buffer.getvalue()


def unpacked(archive: bytes, directory: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        files.extractall(directory)
    return directory
