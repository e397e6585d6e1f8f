"""Rows of a file with their targets, and their division, for a program that trains again.

Shapes: `r` rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .columns import number_of, texts_of
from .files import read_rows
from .preprocessing import CannotPredict, features
from .readings import derived
from .training import Rows

VALID_SHARE = 0.2


def examples(rows: str | Path, target: str | Sequence[str], archive: Path) -> tuple[Tensor, Tensor]:
    """(r, ...) float32 what the network of an unpacked ``archive`` reads, and its targets (r,), of a file of ``rows``; of
    several targets (r, t).

    Args:
        rows: CSV or NPZ.
        target: The column of the targets, or the columns; arrays have them in `y`.
        archive: The folder with recipe.json and preprocessing.json.

    Raises:
        CannotPredict: A column is missing, or a target is no class of the model, or no number.
        OSError: A file can't be read.
    """
    about, fitted = (
        json.loads((archive / name).read_text(encoding="utf-8")) for name in ("recipe.json", "preprocessing.json")
    )
    columns = read_rows(rows, fitted.get("image"))
    several, names = not isinstance(target, str), [target] if isinstance(target, str) else list(target)
    if str(rows).endswith(".npz") or fitted.get("image"):
        y = _column(columns, "y", {})
        given = list(np.asarray(y).T) if several else [y]
    else:
        given = [_column(columns, name, fitted.get("readings", {})) for name in names]
    found = [encoded(values, one) for values, one in zip(given, _each(about), strict=True)]
    return torch.from_numpy(features(columns, fitted)), torch.stack(found, dim=1) if several else found[0]


def _column(columns: Mapping[str, Any], named: str, readings: Mapping[str, Any]) -> Sequence[Any]:
    if named not in columns:
        raise CannotPredict(f"there is no column {named!r} of targets; the columns are: {', '.join(columns)}")
    found: Sequence[Any] = columns[named]
    return found if named not in readings else derived({named: found}, {named: readings[named]})[named].tolist()


def _each(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What recipe.json has of each target, as of a model of that one."""
    scale = about["target_scale"]
    if about["task"] == "multilabel":
        return [{"task": "classification", "classes": levels} for levels in about["levels"]]
    if isinstance(about["target"], str):
        return [dict(about)]
    units = zip(scale["mean"], scale["scale"], strict=True)
    return [{"task": "regression", "target_scale": {"mean": mean, "scale": unit}} for mean, unit in units]


def encoded(values: Sequence[Any], about: Mapping[str, Any]) -> Tensor:
    """(r,) class indices, int64, or standardized numbers, float32, as recipe.json has classes and scale.

    Raises:
        CannotPredict: A value is no class of the model, or no number.
    """
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    if about["task"] == "regression":
        scale = about["target_scale"]
        numbers = torch.tensor([number_of(value) for value in listed], dtype=torch.float64)
        if not bool(numbers.isfinite().all()):
            raise CannotPredict("the target has values that are no numbers")
        standardized: Tensor = (numbers - scale["mean"]) / scale["scale"]
        return standardized.float()
    place = {label: index for index, label in enumerate(about["classes"])}
    found = [next((place[text] for text in texts_of(value) if text in place), -1) for value in listed]
    if -1 in found:
        raise CannotPredict(f"the target has the value {listed[found.index(-1)]!r}, which is no class of the model")
    return torch.tensor(found)


def weights(rows: str | Path, column: str | None) -> Tensor | None:
    """(r,) the weights of a file's rows, with the mean 1; None without a ``column`` of weights.

    Raises:
        CannotPredict: The column is missing, or is not all numbers of at least 0.
        OSError: The file can't be read.
    """
    if column is None:
        return None
    columns = read_rows(rows, None)
    if column not in columns:
        raise CannotPredict(f"there is no column {column!r} of weights")
    found = torch.tensor([number_of(value) for value in columns[column]], dtype=torch.float64)
    if not bool((found >= 0).all()) or not bool(found.isfinite().all()) or not bool(found.any()):
        raise CannotPredict(f"the weights {column!r} are not all numbers of at least 0")
    return (found / found.mean()).float()


def split(x: Tensor, y: Tensor, w: Tensor | None, seed: int) -> Rows:
    """Training and validation rows with the weights of the former, divided at random."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    valid, train = order.tensor_split([round(VALID_SHARE * len(x))])
    return Rows(x[train], y[train], x[valid], y[valid], None if w is None else w[train] / w[train].mean())
