"""Writes the archive: a ZIP file of weights.safetensors, recipe.json, preprocessing.json, loader.py and README.md.

Equal models give equal bytes: nothing in it tells when or where it was written.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from service.spec import Recipe
from workers.archive.card import model_card
from workers.archive.loader import FAMILIES, FORMAT, mlp
from workers.archive.plain import CannotExport, plain
from workers.data import Fold
from workers.models import ModelShape, build_model

__all__ = ["CannotExport", "Trained", "build_archive"]

_ROOT = Path(__file__).parents[2]
_CHECKED_ROWS = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)
_OURS = re.compile(r"^from (workers[.\w]*) import (?:\([^)]*\)|[^\n]*)\n", re.MULTILINE)
_MODULES = {"cnn": "workers.models.cnn", "sequence": "workers.models.sequence"}
"""Families whose networks are modules of their own, and where these are."""
_VERSIONED = ("regsearch", "torch", "numpy", "pandas", "scikit-learn", "optuna")


@dataclass(frozen=True)
class Trained:
    """One trained network and what it was trained with; ``fold`` has the preprocessing that belongs to it."""

    family: str
    recipe: Recipe
    shape: ModelShape
    weights: Mapping[str, Tensor]
    fold: Fold


def build_archive(model: Trained, about: Mapping[str, Any]) -> bytes:
    """The archive as bytes.

    Args:
        model: What is to be in it.
        about: What recipe.json says beside the model: task, classes, metric, scores, where it came from.

    Raises:
        CannotExport: The loader knows no such network.
    """
    described, weights = plain(model.family, model.shape, model.weights)
    _check(model, described, weights)
    document = {
        "format": FORMAT,
        **about,
        "model": described,
        "target_scale": {"mean": model.fold.target.mean, "scale": model.fold.target.scale},
        "recipe": model.recipe.said(),
        "versions": versions(),
    }
    preprocessing = model.fold.preprocessor.to_json()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, "weights.safetensors", save(weights))
        _add(archive, "recipe.json", _json(document))
        _add(archive, "preprocessing.json", _json(preprocessing))
        _add(archive, "loader.py", on_its_own("workers.archive.loader").encode())
        if described["family"] in _MODULES:
            _add(archive, "networks.py", on_its_own(_MODULES[described["family"]]).encode())
        _add(archive, "README.md", model_card(document, preprocessing).encode())
    return buffer.getvalue()


@torch.no_grad()
def _check(model: Trained, described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Let the loader's network and the service's own see the same rows: a setting of the network that only one of them
    knows must not become a model that predicts something else.
    """
    ours = build_model(model.shape)
    ours.load_state_dict(dict(model.weights), strict=True)
    modules = importlib.import_module(_MODULES[described["family"]]) if described["family"] in _MODULES else None
    theirs = mlp(described) if modules is None else FAMILIES[described["family"]](described, modules)
    try:
        theirs.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        raise CannotExport(f"the loader does not know this network: {error}") from None
    x = torch.from_numpy(model.fold.x_valid[:_CHECKED_ROWS])
    if not torch.allclose(theirs.eval()(x), ours.eval()(x), rtol=1e-4, atol=1e-5, equal_nan=True):
        raise CannotExport("the loader's network does not say what the service's says")


def versions() -> dict[str, str]:
    """What the model was trained with."""
    return {name: version(name) for name in _VERSIONED}


def on_its_own(module: str) -> str:
    """The source of a module with every module of ours that it imports put in the place of its first import."""
    seen: set[str] = set()

    def source(name: str) -> str:
        text = (_ROOT / Path(*name.split("."))).with_suffix(".py").read_text(encoding="utf-8")
        body = text if name == module else text.split("from __future__ import annotations\n", 1)[1].strip() + "\n\n"
        return _OURS.sub(lambda found: _once(found.group(1)), body)

    def _once(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        return source(name)

    return source(module)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    # Weights are noise to a compressor.
    archive.writestr(entry, content, zipfile.ZIP_STORED if name.endswith("tensors") else zipfile.ZIP_DEFLATED)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode()
