"""Writes the archive: a ZIP file of weights.safetensors, recipe.json, preprocessing.json, loader.py and README.md.

Equal models give equal bytes: nothing in it tells when or where it was written.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from service.spec import Recipe
from workers.archive.card import model_card
from workers.archive.loader import FORMAT
from workers.archive.plain import CannotExport, plain
from workers.data import Fold, Preprocessor
from workers.models import ModelShape

__all__ = ["CannotExport", "Trained", "build_archive"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
_OWN_MODULE = "from workers.data.scaling import Scaler\n"
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
        CannotExport: The loader knows no such network, or no such data.
    """
    if not isinstance(model.fold.preprocessor, Preprocessor):
        raise CannotExport("models of images and sequences can't be downloaded yet, only those of tables")
    described, weights = plain(model.family, model.shape, model.weights)
    document = {
        "format": FORMAT,
        **about,
        "model": described,
        "target_scale": {"mean": model.fold.target.mean, "scale": model.fold.target.scale},
        "recipe": {name: list(v) if isinstance(v, tuple) else v for name, v in model.recipe.said().items()},
        "versions": versions(),
    }
    preprocessing = model.fold.preprocessor.to_json()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, "weights.safetensors", save(weights))
        _add(archive, "recipe.json", _json(document))
        _add(archive, "preprocessing.json", _json(preprocessing))
        _add(archive, "loader.py", loader_source().encode())
        _add(archive, "README.md", model_card(document, preprocessing).encode())
    return buffer.getvalue()


def versions() -> dict[str, str]:
    """What the model was trained with."""
    return {name: version(name) for name in _VERSIONED}


def loader_source() -> str:
    """The loader as one file: its only import of ours, the scaling of numbers, is put in its place."""
    here = Path(__file__).parent
    loader = (here / "loader.py").read_text(encoding="utf-8")
    scaling = (here.parent / "data" / "scaling.py").read_text(encoding="utf-8")
    return loader.replace(_OWN_MODULE, scaling.split("from __future__ import annotations\n")[1].strip() + "\n")


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    # Weights are noise to a compressor.
    archive.writestr(entry, content, zipfile.ZIP_STORED if name.endswith("tensors") else zipfile.ZIP_DEFLATED)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode()
