"""A study's data on the training device, and the rows that each fold trains and validates on.

Every fold has its own preprocessing, so the folds' matrices are stored one below the other and a lane knows its rows by
index. Folds are cut to equal lengths (training rows by repeating a few, validation rows by a mask), which lets lanes of
different folds share a stack. Shapes: `R` rows of all folds together, `n` training and `m` validation rows of a fold.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.data import Features, Fold, Lazy
from workers.plain.network import Shape, spread
from workers.plain.update import balanced
from workers.stack.crew import Crew
from workers.stack.examples import Examples


@dataclass(frozen=True)
class DeviceData:
    """Shapes: ``x (R, ...)``, ``y (R,)``, or ``(R, t)`` of several targets; per fold f ``train (f, n)``, ``valid (f, m)``,
    ``mask (f, m)``, ``scale (f,)``, ``balance (f, c)``. ``x`` is a tensor, or `Examples` that are not there as a whole.

    ``scale`` turns a standardized regression error back into the target's unit (1 for classes, labels and several targets).
    ``balance`` are the weights that make the classes of a fold's training rows count alike, of labels two for each of them
    (`workers.plain.update.balanced`). ``wanted`` are the metrics that the study looks at, ``positive`` the positive class
    of two, ``quantile`` the level of the quantile that a regression predicts (see `workers.scoring.metrics`).
    The last inputs of a table are one-hot ``categories``, given by their numbers of levels. Lanes that are fine-tuned begin
    with ``start``, a state dict on the CPU, which may lack the last layer. ``weights`` (R,) multiply the losses of training
    rows, where they are not all alike. Networks are trained by a ``crew`` of several devices, where there is one.
    """

    x: Any
    y: Tensor
    train: Tensor
    valid: Tensor
    mask: Tensor
    scale: Tensor
    balance: Tensor
    task: str
    outputs: int
    wanted: tuple[str, ...] = ()
    positive: int = 1
    quantile: float | None = None
    categories: tuple[int, ...] = ()
    start: Mapping[str, Tensor] | None = None
    weights: Tensor | None = None
    crew: Crew | None = None

    @property
    def device(self) -> torch.device:
        """Where the data is."""
        return self.y.device

    @property
    def inputs(self) -> tuple[int, ...]:
        """The shape of an example."""
        return tuple(self.x.shape[1:])

    @property
    def several(self) -> str | None:
        """The task, if there are several targets."""
        return self.task if self.y.ndim == 2 else None

    @property
    def numbers(self) -> int:
        """Of an example."""
        return math.prod(self.inputs)

    def chosen(self, rows: Tensor) -> Any:
        """(r, ...) the examples of rows (r,), which may be many."""
        return self.x[rows] if isinstance(self.x, Tensor) else self.x.subset(rows)

    @functools.cached_property
    def valid_x(self) -> Any:
        """(m, ...) the validation examples of the only fold."""
        return self.chosen(self.valid[0])

    def seen(self, fold: int) -> Tensor:
        """(r, ...) on the CPU, the training examples of a fold that networks see as they are initialized."""
        if fold not in self._seen:
            self._seen[fold] = self.x[spread(self.train[fold])].cpu()
        return self._seen[fold]

    @functools.cached_property
    def _seen(self) -> dict[int, Tensor]:
        return {}

    @functools.cached_property
    def verdicts(self) -> dict[Shape, Any]:
        """Those of `workers.stack.probe` on the shapes that were tried with these data, and their ``start``."""
        return {}

    @property
    def train_rows(self) -> int:
        """n, the training rows of one lane."""
        return int(self.train.shape[1])

    @property
    def folds(self) -> int:
        """Number of folds; 1 for a holdout."""
        return int(self.train.shape[0])

    def only(self, folds: slice) -> DeviceData:
        """Some of the folds, with the same rows on the device: number 0 is the first of them."""
        parts = {name: getattr(self, name)[folds] for name in ("train", "valid", "mask", "scale", "balance")}
        return replace(self, **parts)

    @classmethod
    def of(
        cls,
        folds: Sequence[Fold],
        *,
        task: str,
        outputs: int,
        device: torch.device,
        wanted: tuple[str, ...] = (),
        positive: int = 1,
        quantile: float | None = None,
        start: Mapping[str, Tensor] | None = None,
        crew: Crew | None = None,
    ) -> DeviceData:
        """Copy prepared folds to ``device``."""
        xs, ys, train, valid, weights = [], [], [], [], []
        above = 0
        for fold in folds:
            n, m = len(fold.y_train), len(fold.y_valid)
            xs += [fold.x_train, fold.x_valid]
            ys += [fold.y_train, fold.y_valid]
            weights += [np.ones(n, dtype=np.float32) if fold.weights is None else fold.weights, np.ones(m, dtype=np.float32)]
            train.append(np.arange(above, above + n))
            valid.append(np.arange(above + n, above + n + m))
            above += n + m
        longest = max(len(rows) for rows in valid)
        mask = [np.arange(longest) < len(rows) for rows in valid]
        scale = [fold.target.unit for fold in folds]
        labels = [torch.from_numpy(fold.y_train) for fold in folds]
        balance = [torch.ones(outputs) if task == "regression" else balanced(own, outputs).flatten() for own in labels]
        return cls(
            x=examples(xs, device),
            y=torch.from_numpy(np.concatenate(ys)).to(device),
            train=torch.from_numpy(_equal_length(train)).to(device),
            valid=torch.from_numpy(_equal_length(valid)).to(device),
            mask=torch.from_numpy(np.stack(mask)).to(device, torch.float32),
            scale=torch.tensor(scale, dtype=torch.float32, device=device),
            balance=torch.stack(balance).to(device),
            task=task,
            outputs=outputs,
            wanted=wanted,
            positive=positive,
            quantile=quantile,
            categories=_categories(folds),
            start=start,
            weights=None if folds[0].weights is None else torch.from_numpy(np.concatenate(weights)).to(device),
            crew=crew,
        )


def examples(parts: Sequence[Features], device: torch.device) -> Any:
    """Features below each other, on the device or as they are asked for."""
    if isinstance(parts[0], Lazy):
        return Examples(parts, device)
    return torch.from_numpy(np.concatenate(parts)).to(device)


def _categories(folds: Sequence[Fold]) -> tuple[int, ...]:
    fitted = folds[0].preprocessor
    return tuple(fitted["words"]["sizes"]) if fitted["kind"] == "table" else ()


def _equal_length(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack index vectors, the shorter ones wrapped around."""
    longest = max(len(each) for each in rows)
    return np.stack([np.resize(each, longest) for each in rows]).astype(np.int64)
