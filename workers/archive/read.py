"""Reads the parts of an archive, of any format that there has been."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from safetensors.torch import load
from torch import Tensor

from workers.archive.format1 import upgraded


def read_archive(archive: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """recipe.json and preprocessing.json as the present format has them, and the weights by the names of `workers.plain`."""
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        about, fitted = (json.loads(files.read(name)) for name in ("recipe.json", "preprocessing.json"))
        weights = load(files.read("weights.safetensors"))
    return upgraded(about, fitted, weights) if about["format"] == 1 else (about, fitted, weights)
