"""Writes the archive: a ZIP file of weights.safetensors, recipe.json, preprocessing.json, README.md, and the code that goes
with them: loader.py, which predicts, train.py, which trains the same network again, and `plain`, whose files these use.

Equal models give equal bytes: nothing in it tells when or where it was written.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from service.result.archive import ArchivedModule, ArchiveDocument, NetworkShape, TargetUnit, preprocessing_of
from service.spec import Recipe
from workers import plain
from workers.archive.card import model_card
from workers.archive.program import Training, program
from workers.data import Fold
from workers.plain.foreign import registered, source_hash
from workers.plain.loader import FORMAT
from workers.plain.network import Average, Shape

_SHIPPED = Path(__file__).parent / "shipped"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_VERSIONED = ("regsearch", "torch", "numpy", "pandas", "scikit-learn", "optuna")


@dataclass(frozen=True)
class Trained:
    """Trained networks of one shape and what they were trained with; ``fold`` has the preprocessing that belongs to them.

    Predictions of several are averaged.
    """

    recipe: Recipe
    shape: Shape
    networks: Sequence[Mapping[str, Tensor]]
    fold: Fold
    training: Training


def build_archive(model: Trained, about: Mapping[str, Any]) -> bytes:
    """The archive as bytes.

    Args:
        model: What is to be in it.
        about: What recipe.json has beside the model: task, classes, metric, scores, where it came from.
    """
    document = ArchiveDocument(
        format=FORMAT,
        **about,
        model=NetworkShape(**model.shape.to_json()),
        networks=len(model.networks),
        module=_module(model.shape),
        target_scale=TargetUnit(mean=model.fold.target.mean, scale=model.fold.target.scale),
        recipe=model.recipe.said(),
        versions=versions(),
    ).to_json()
    fitted = preprocessing_of(model.fold.preprocessor).to_json()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, "weights.safetensors", save(_plain_weights(model.networks)))
        _add(archive, "recipe.json", _json(document))
        _add(archive, "preprocessing.json", _json(fitted))
        _add(archive, "README.md", model_card(document, fitted).encode())
        _add(archive, "loader.py", (_SHIPPED / "loader.py").read_bytes())
        _add(archive, "train.py", program(model.shape, model.recipe, model.training).encode())
        for path in sorted(Path(plain.__path__[0]).glob("*.py")):
            _add(archive, f"plain/{path.name}", path.read_bytes())
    return buffer.getvalue()


def _module(shape: Shape) -> ArchivedModule | None:
    """What is told of a module of theirs, of which there are the weights only."""
    if shape.module is None:
        return None
    return ArchivedModule(name=shape.module, source_sha256=source_hash(registered(shape.module)))


def versions() -> dict[str, str]:
    """What the model was trained with."""
    return {name: version(name) for name in _VERSIONED}


def _plain_weights(networks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """By the names that `workers.plain.loader` gives them; without the count of batches, which a stack does not keep."""
    prefixes = [Average.names(number) for number in range(len(networks))] if len(networks) > 1 else [""]
    return {
        f"{prefix}{name}": value.detach().cpu().contiguous()
        for prefix, weights in zip(prefixes, networks, strict=True)
        for name, value in weights.items()
        if not name.endswith("num_batches_tracked")
    }


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    # Weights are noise to a compressor.
    archive.writestr(entry, content, zipfile.ZIP_STORED if name.endswith("tensors") else zipfile.ZIP_DEFLATED)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode()
