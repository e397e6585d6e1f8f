"""An earlier study's archive as the beginning of networks: its weights by our modules' names, and its preprocessing.

Preprocessing belongs to weights that were trained behind it, so it is taken over as it is. The last layer is taken over
only where it says the same: the same classes in the same order, or the same number, which then keeps its unit.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load
from torch import Tensor

from workers.archive.plain import stacked
from workers.data import ArrayScaler, Preprocessor, RawTable, TargetScale

_HEAD = "head."


@dataclass(frozen=True)
class Start:
    """``weights`` is a state dict, without the last layer if that has to be another; ``target`` is that layer's unit."""

    weights: Mapping[str, Tensor]
    preprocessor: Preprocessor | ArrayScaler
    target: TargetScale | None


def read_start(archive: bytes, table: RawTable, target: str) -> Start:
    """What an archive brings to a study that predicts the column ``target`` of ``table``."""
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        about, fitted = (json.loads(files.read(name)) for name in ("recipe.json", "preprocessing.json"))
        weights = stacked(about["model"], load(files.read("weights.safetensors")))
    preprocessor = ArrayScaler.from_json(fitted) if fitted["kind"] == "array" else Preprocessor.from_json(fitted)
    if not _says_the_same(about, table, target):
        return Start({name: value for name, value in weights.items() if not name.startswith(_HEAD)}, preprocessor, None)
    return Start(weights, preprocessor, TargetScale(**about["target_scale"]))


def _says_the_same(about: Mapping[str, Any], table: RawTable, target: str) -> bool:
    if about["task"] != table.task:
        return False
    return list(about["classes"]) == list(table.labels) if table.task == "classification" else about["target"] == target
