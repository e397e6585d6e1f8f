"""Targets of rows that are trained on, and their division, for a program that trains again.

Shapes: `r` rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .columns import number_of, texts_of
from .preprocessing import CannotPredict
from .training import Rows

VALID_SHARE = 0.2


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


def split(x: Tensor, y: Tensor, seed: int) -> Rows:
    """Training and validation rows, divided at random."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    valid, train = order.tensor_split([round(VALID_SHARE * len(x))])
    return Rows(x[train], y[train], x[valid], y[valid])
