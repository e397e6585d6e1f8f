"""The raw table: features and target as read, before anything is fitted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import datasets as bundled

from service.datasets import BUILTIN, Arrays, Column, Mapped, load_arrays, read_frame, unpacked_bytes
from service.datasets.describe import columns_of, is_categorical, summarize
from service.datasets.readings import ColumnType, read_by
from service.datasets.tables import PARTS, READ_BY_ROWS_BYTES, names_of_targets
from service.errors import TrialError
from workers.data.fitting import Layout
from workers.data.pictures import load_pictures
from workers.data.records import Records, blocks, chosen, hashes
from workers.data.streamed import derived_frame, stream
from workers.plain.columns import WORDS_FOR_MISSING, mapped, text_of
from workers.plain.readings import Reading, days_by, derived, number_by


@dataclass(frozen=True)
class DataSource:
    """The source of the rows, a built-in ``name`` or a ``path`` in ``format``; and how to read them.

    ``categorical`` columns are read as categories whatever they contain; ``groups``, ``time`` and ``split`` name columns
    that define the split, ``weights`` one that weighs the rows; none of them is a feature. ``layout`` keeps the shape of
    images or sequences in an NPZ file.

    What is larger than ``most`` bytes as numbers is read row by row as it is needed: arrays as they are in memory, and,
    where there is a ``scratch`` directory, NPZ and Parquet files, which nobody must change meanwhile.
    """

    task: str
    name: str | None = None
    path: Path | None = None
    format: str = "csv"
    target: str | tuple[str, ...] | None = None
    categorical: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    groups: str | None = None
    time: str | None = None
    split: str | None = None
    weights: str | None = None
    layout: Layout = "flat"
    missing: tuple[str, ...] = ()
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    channels: str = "auto"
    image_size: int | None = None
    scratch: Path | None = None
    most: float = READ_BY_ROWS_BYTES

    @property
    def targets(self) -> list[str]:
        """The columns of the targets; none where the data have them apart."""
        return [self.target] if isinstance(self.target, str) else list(self.target or ())


@dataclass(frozen=True)
class RawTable:
    """Features (rows, columns), and the target as class indices (int64) or numbers (float64); of several targets (rows, t),
    numbers, or labels that are 1 (int64) for the second of the target's two ``levels``.

    ``labels`` are the names of the classes in order of their index, ``targets`` those of several targets. Images and
    sequences are in ``arrays`` (rows, …), and ``features`` then has no columns; ``lengths`` (rows,) are those of padded
    sequences. ``records`` stand for ``features`` that are not in memory. ``by_rows``: what is made of the features is not to
    be in memory as a whole.
    ``readings`` tell how ``features`` came about, as new rows need it; ``channels`` where images have theirs.
    ``groups`` (rows,) are group numbers, −1 for none; ``times`` (rows,) order the rows; ``part`` (rows,) is 0, 1 or 2 for
    training, validation and test rows where the file itself defines them; ``weights`` (rows,) are those of their losses.
    """

    features: pd.DataFrame
    target: NDArray[Any]
    task: str
    labels: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    row_hashes: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    layout: Layout = "flat"
    arrays: NDArray[Any] | Mapped | None = None
    records: Records | None = None
    by_rows: bool = False
    lengths: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None
    part: NDArray[np.int8] | None = None
    weights: NDArray[np.float64] | None = None
    readings: Mapping[str, Reading] = field(default_factory=dict)
    channels: str = "auto"
    kept: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    """Of the rows of the file, which have a target, or all of several."""
    image: Mapping[str, Any] | None = None
    """Size and mode of images that come from image files, as new ones need them."""
    targets: tuple[str, ...] = ()
    levels: tuple[tuple[str, str], ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.target)

    @property
    def outputs(self) -> int:
        """Outputs of a network: one per class, or one number, or one per target."""
        return len(self.labels) if self.task == "classification" else max(1, len(self.targets))

    def data_hash(self) -> str:
        """SHA-256 of all rows in their order: features (by their row hashes), targets and classes."""
        names = self.features.columns if self.records is None else self.records.names
        told, several = (self.task, self.labels, list(map(str, names))), (self.targets, self.levels) if self.targets else ()
        digest = hashlib.sha256(repr((*told, *several)).encode())
        digest.update(np.ascontiguousarray(self.row_hashes).tobytes())
        digest.update(np.ascontiguousarray(self.target).tobytes())
        if self.weights is not None:
            digest.update(np.ascontiguousarray(self.weights).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Content:
    """The content of a source, including rows without a target."""

    frame: pd.DataFrame
    targets: pd.DataFrame
    labels: tuple[str, ...] = ()
    arrays: Arrays | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    """Of a file with columns: how each is read."""
    image: Mapping[str, Any] | None = None
    records: Records | None = None
    hashes: NDArray[np.uint64] | None = None
    """Of the rows of ``records``."""

    @property
    def readings(self) -> dict[str, Reading]:
        """Of the columns that are not read as they are."""
        return {name: column.form for name, column in self.columns.items() if column.form is not None}


def load_table(source: DataSource) -> RawTable:
    """Read a source.

    Raises:
        InvalidInput: The file can't be read (it was readable at submit).
        TrialError: The target does not fit the task, or the arrays do not fit the layout.
    """
    content = _read(source)
    targets = {str(name): _target(column, content, source) for name, column in content.targets.items()}
    kept = np.logical_and.reduce([_usable(column, source.task) for column in targets.values()])
    rows = np.flatnonzero(kept)
    frame, targets = content.frame[kept].reset_index(drop=True), {name: own[kept] for name, own in targets.items()}
    encoded = {name: _encode_target(own.reset_index(drop=True), source.task, name) for name, own in targets.items()}
    (values, labels), *others = encoded.values()
    aside = [name for name in (source.groups, source.time, source.split, source.weights) if name is not None]
    unread = {*aside, *(targets if source.task != "regression" else [])}
    readings = {name: reading for name, reading in content.readings.items() if name not in unread}
    features = derived_frame(frame.drop(columns=aside), readings) if content.records is None else _no_columns(len(rows))
    arrays = content.arrays
    shaped = chosen(arrays.x, rows) if arrays is not None and source.layout != "flat" else None
    records = content.records.select(rows) if content.records is not None else None
    names = [str(name) for name in features.columns if _is_category(source, content, features[name])]
    return RawTable(
        features=features,
        target=np.stack([values, *(own for own, _ in others)], axis=1) if others else values,
        task=source.task,
        labels=() if others else content.labels or labels,
        targets=tuple(encoded) if others else (),
        levels=tuple((own[0], own[1]) for _, own in encoded.values()) if source.task == "multilabel" else (),
        categorical=tuple(names) if records is None else records.categorical,
        row_hashes=_row_hashes(features, shaped) if content.hashes is None else content.hashes[rows],
        layout=source.layout,
        arrays=shaped,
        records=records,
        by_rows=records is not None or (shaped is not None and 4 * math.prod(shaped.shape) > source.most),
        lengths=arrays.lengths[kept] if shaped is not None and arrays is not None and arrays.lengths is not None else None,
        groups=pd.factorize(frame[source.groups])[0].astype(np.int64) if source.groups is not None else None,
        times=_times(frame[source.time], content.readings.get(source.time)) if source.time is not None else None,
        part=_part(frame[source.split]) if source.split is not None else _part_of(arrays, kept),
        weights=_weights(frame[source.weights], content.readings.get(source.weights)) if source.weights else None,
        readings=readings,
        channels="last" if content.image is not None else source.channels,
        kept=kept,
        image=content.image,
    )


def _read(source: DataSource) -> _Content:
    if source.name is not None:
        x, y = getattr(bundled, f"load_{source.name}")(return_X_y=True)
        facts = BUILTIN[source.name]
        frame = pd.DataFrame(np.asarray(x, dtype=np.float32), columns=list(facts.features))
        labels = facts.classes if source.task == facts.task else ()
        if source.layout == "image" and facts.image is not None:
            images = np.asarray(x, dtype=np.float32).reshape(-1, *facts.image)
            return _Content(_no_columns(len(y)), _alone(y), labels, Arrays(images, np.asarray(y)))
        columns = {column.name: column for column in read_by(facts.columns, _types(source))}
        return _Content(frame.drop(columns=list(source.drop)), _alone(y), labels, columns=columns)
    assert source.path is not None, "a source has a name or a path"
    if source.format == "zip":
        arrays, pictures = load_pictures(source.path, source.image_size)
        image = {"size": list(pictures.size), "mode": pictures.mode}
        return replace(_of_arrays(arrays, source), image=image)
    if source.format == "npz":
        return _of_arrays(load_arrays(source.path, math.inf if source.scratch is None else source.most), source)
    if source.format == "parquet" and source.scratch is not None and unpacked_bytes(source.path) > source.most:
        return _streamed(source.path, source.scratch, source)
    frame = read_frame(source.path, source.format, source.missing)
    # All columns, as at submit: those that are left out may show the mark of decimals.
    found = read_by(columns_of(summarize([frame])), _types(source))
    columns = {column.name: column for column in found if column.name not in source.drop}
    named = source.targets
    return _Content(frame.drop(columns=[*named, *source.drop]), frame[named], columns=columns)


def _types(source: DataSource) -> dict[str, ColumnType]:
    return {**source.types, **dict.fromkeys(source.categorical, "category")}


def _streamed(path: Path, scratch: Path, source: DataSource) -> _Content:
    named = (*source.targets, source.groups, source.time, source.split, source.weights)
    aside = list(dict.fromkeys(name for name in named if name is not None))
    found = stream(path, scratch, source.missing, _types(source), source.drop, aside)
    frame = found.aside.drop(columns=source.targets)
    content = _Content(frame, found.aside[source.targets], columns=found.columns)
    return replace(content, records=found.records, hashes=found.hashes)


def _of_arrays(arrays: Arrays, source: DataSource) -> _Content:
    layout = source.layout
    dimensions: dict[Layout, tuple[int, ...]] = {"flat": (2, 3, 4), "sequence": (3,), "image": (3, 4)}
    if arrays.x.ndim not in dimensions[layout]:
        raise TrialError(f"examples of shape {arrays.x.shape[1:]} can't be read as {layout}")
    if layout != "flat":
        return _Content(_no_columns(len(arrays.y)), _alone(arrays.y), arrays=arrays)
    width = math.prod(arrays.x.shape[1:])
    names = tuple(f"x{index}" for index in range(width))
    if isinstance(arrays.x, Mapped) or (arrays.x.dtype == np.uint8 and 4 * arrays.x.size > source.most):
        x = arrays.x.reshaped(width) if isinstance(arrays.x, Mapped) else arrays.x.reshape(-1, width)
        records = Records(x, names)
        content = _Content(_no_columns(len(arrays.y)), _alone(arrays.y), arrays=arrays)
        return replace(content, records=records, hashes=records.hashes())
    flat = arrays.x.reshape(len(arrays.x), -1).astype(np.float32)
    return _Content(pd.DataFrame(flat, columns=list(names)), _alone(arrays.y), arrays=arrays)


def _alone(y: NDArray[Any]) -> pd.DataFrame:
    """Targets (rows,), or (rows, t), as columns with the names that data without columns give them."""
    return pd.DataFrame({"y": y}) if y.ndim == 1 else pd.DataFrame(y, columns=list(names_of_targets(y.shape[1])))


def _target(target: pd.Series[Any], content: _Content, source: DataSource) -> pd.Series[Any]:
    """A target, as numbers where it has a form of its own."""
    reading = content.readings.get(str(target.name))
    if source.task != "regression" or reading is None or reading["kind"] != "number":
        return target
    return pd.Series(derived({"y": target}, {"y": reading})["y"], index=target.index)


def _no_columns(rows: int) -> pd.DataFrame:
    return pd.DataFrame(index=range(rows))


def _usable(target: pd.Series[Any], task: str) -> NDArray[np.bool_]:
    """A mask of the rows with a target; an infinite number does not count as one."""
    present = target.notna().to_numpy(dtype=bool)
    if task == "regression" and getattr(target.dtype, "kind", "O") == "f":
        present = present & np.isfinite(target.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(present)


def _encode_target(target: pd.Series[Any], task: str, name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    if target.empty:
        raise TrialError("no row has a target")
    if task != "regression":
        try:
            codes, labels = pd.factorize(target, sort=True)
        except TypeError:  # values of several types have no order
            codes, labels = pd.factorize(target.map(text_of), sort=True)
        if len(labels) < 2:
            raise TrialError(f"the target has only one class: {list(labels)}")
        if task == "multilabel" and len(labels) > 2:
            raise TrialError(f"the label {name!r} has {len(labels)} values; a label has two")
        return codes.astype(np.int64), tuple(text_of(label) for label in labels)
    try:
        return target.to_numpy(dtype=np.float64), ()
    except (ValueError, TypeError) as error:
        raise TrialError(f"the target of a regression must be numbers: {error}") from None


def _is_category(source: DataSource, content: _Content, column: pd.Series[Any]) -> bool:
    name = str(column.name)
    asked = name in content.columns and content.columns[name].kind == "categorical"
    return asked or name in source.categorical or is_categorical(column)


def _times(column: pd.Series[Any], reading: Reading | None) -> NDArray[np.float64]:
    """Numbers that order the rows as their times do; rows without a time come first."""
    try:
        if reading is not None:
            order = {"number": number_by, "date": days_by}[reading["kind"]]
            found = np.array(mapped(column, lambda value: order(reading, value)), dtype=np.float64)
            return np.where(np.isnan(found), -np.inf, found)
        if not is_categorical(column):
            return column.to_numpy(dtype=np.float64, na_value=-np.inf)
        column = column.mask(column.isin(WORDS_FOR_MISSING))
        moments = pd.to_datetime(column, utc=True, format="ISO8601").dt.tz_localize(None).to_numpy("datetime64[us]")
        return np.where(np.isnat(moments), -np.inf, moments.astype(np.int64).astype(np.float64))
    except (ValueError, TypeError) as error:
        raise TrialError(f"the time column {column.name!r} contains neither numbers nor ISO 8601 times: {error}") from None


def _weights(column: pd.Series[Any], reading: Reading | None) -> NDArray[np.float64]:
    if reading is not None and reading["kind"] == "number":
        found = np.array(mapped(column, lambda value: number_by(reading, value)), dtype=np.float64)
    else:
        found = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise TrialError(f"the weights {column.name!r} are not all numbers of at least 0")
    return found


def _part_of(arrays: Arrays | None, kept: NDArray[np.bool_]) -> NDArray[np.int8] | None:
    return arrays.part[kept] if arrays is not None and arrays.part is not None else None


def _part(column: pd.Series[Any]) -> NDArray[np.int8]:
    """0, 1 or 2 for the words of a column that assigns rows to training, validation and test."""
    words = column.map(lambda value: text_of(value).strip().lower())
    unknown = sorted({*words} - {*PARTS})
    if unknown:
        raise TrialError(f"the split column {column.name!r} contains {unknown[0]!r}; allowed: train, valid, test")
    return np.array([PARTS[word] for word in words], dtype=np.int8)


def _row_hashes(features: pd.DataFrame, arrays: NDArray[Any] | Mapped | None) -> NDArray[np.uint64]:
    """(rows,) of the features, or one hash per image or sequence, computed from its bytes."""
    if arrays is None:
        return hashes(features)
    found = [_hashes_of(arrays[block]) for block in blocks(len(arrays), math.prod(arrays.shape[1:]))]
    return np.concatenate(found)


def _hashes_of(arrays: NDArray[Any]) -> NDArray[np.uint64]:
    rows = np.ascontiguousarray(arrays).reshape(len(arrays), -1).view(np.uint8)
    texts = np.array([row.tobytes() for row in rows], dtype=object)
    return pd.util.hash_array(texts, categorize=False)
