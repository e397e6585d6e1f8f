"""The raw table: features and target as they come, before any statistics are taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import datasets as bundled

from service.datasets import BUILTIN, read_arrays, read_frame
from service.datasets.files import is_categorical
from service.errors import TrialError


@dataclass(frozen=True)
class DataSource:
    """Where the rows are: a built-in ``name``, or a ``path`` in ``format``; and how to read them."""

    task: str
    name: str | None = None
    path: Path | None = None
    format: str = "csv"
    target: str | None = None
    categorical: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawTable:
    """Features (rows, columns), and the target as class indices (int64) or numbers (float64).

    ``labels`` names the classes in order of their index; ``dropped`` counts rows without a target.
    """

    features: pd.DataFrame
    target: NDArray[Any]
    task: str
    labels: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    dropped: int = 0
    row_hashes: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.target)

    @property
    def outputs(self) -> int:
        """Outputs of a network: one per class, or one number."""
        return len(self.labels) if self.task == "classification" else 1


def load_table(source: DataSource) -> RawTable:
    """Read a source.

    Raises:
        InvalidInput: The file can't be read (it was readable at submit).
        TrialError: The target does not fit the task.
    """
    features, target = _read(source)
    present = ~pd.isna(target).to_numpy()
    features, target = features[present].reset_index(drop=True), target[present].reset_index(drop=True)
    hashes = pd.util.hash_pandas_object(features, index=False).to_numpy().astype(np.uint64)
    words = tuple(name for name in features.columns if name in source.categorical or is_categorical(features[name]))
    values, labels = _encode_target(target, source.task)
    return RawTable(features, values, source.task, labels, words, int((~present).sum()), hashes)


def _read(source: DataSource) -> tuple[pd.DataFrame, pd.Series[Any]]:
    if source.name is not None:
        x, y = getattr(bundled, f"load_{source.name}")(return_X_y=True)
        names = [column.name for column in BUILTIN[source.name].columns if column.name != "target"]
        frame = pd.DataFrame(np.asarray(x, dtype=np.float32), columns=names)
        return frame.drop(columns=list(source.drop)), pd.Series(y)
    assert source.path is not None, "a source has a name or a path"
    if source.format == "npz":
        x, y = read_arrays(source.path)
        flat = x.reshape(len(x), -1)
        return pd.DataFrame(flat, columns=[f"x{index}" for index in range(flat.shape[1])]), pd.Series(y)
    frame = read_frame(source.path, source.format)
    target = frame[source.target]
    return frame.drop(columns=[str(source.target), *source.drop]), target


def _encode_target(target: pd.Series[Any], task: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    if task == "classification":
        codes, labels = pd.factorize(target, sort=True)
        if len(labels) < 2:
            raise TrialError(f"the target has only one class: {list(labels)}")
        return codes.astype(np.int64), tuple(str(label) for label in labels)
    return target.to_numpy(dtype=np.float64), ()
