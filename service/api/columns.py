"""Checks of a spec's columns and of its split against the table that it names."""

from __future__ import annotations

from collections.abc import Sequence

from service.datasets import Column, TableInfo
from service.datasets.tables import PARTS
from service.errors import InvalidInput
from service.spec import SETTINGS, StudySpec
from service.spec.domain import can_leave
from service.spec.nested import NESTED
from service.spec.parts import ASIDE, ValidationSpec
from service.suggestions import meant

_MIN_ROWS = 20
_MIN_ROWS_IN_PART = 2


def check_columns(spec: StudySpec, table: TableInfo, targets: Sequence[str], *, rows_of_arrays: bool) -> None:
    """Check that every named column exists, is no target and has one use, and that some input is left.

    Raises:
        InvalidInput: With the field and the column.
    """
    if spec.validation.given and not rows_of_arrays:
        message = "applies to NPZ files only; for a table, name the column that defines the split in data.split"
        raise InvalidInput.one("validation.given", message, value=True, allowed="false")
    names = [column.name for column in table.columns if column.name not in targets]
    for field, wanted in (("categorical", spec.data.categorical), ("drop", spec.data.drop)):
        for index, name in enumerate(wanted):
            _check_column(f"data.{field}.{index}", name, names, targets)
    aside: dict[str, str] = {}
    for field in ASIDE:
        column: str | None = getattr(spec.data, field)
        if column is not None:
            _check_aside(spec, f"data.{field}", column, [] if rows_of_arrays else names, targets, aside)
            aside[column] = field
    if spec.data.weights is not None:
        _check_weights(_column(table, spec.data.weights))
    if set(names) <= {*spec.data.drop, *aside}:
        raise InvalidInput.one("data.drop", "leaves no input column", value=list(spec.data.drop), allowed="fewer columns")


def check_embedding(spec: StudySpec, table: TableInfo, targets: Sequence[str]) -> None:
    """Check that embeddings have a categorical input.

    Raises:
        InvalidInput: There is no categorical input.
    """
    domain = spec.domains["embedding"]
    if can_leave(domain, SETTINGS["embedding"].neutral) and not has_categories(spec, table, targets):
        message = "needs a categorical column; data.categorical can name numeric columns to be read as categories"
        raise InvalidInput.one("model.embedding", message, value=domain.model_dump(), allowed="off")


def has_categories(spec: StudySpec, table: TableInfo, targets: Sequence[str]) -> bool:
    """Whether there is a categorical input."""
    others = {*targets, *spec.data.drop, *spec.data.aside}
    inferred = any(column.kind == "categorical" and column.name not in others for column in table.columns)
    return inferred or bool(spec.data.categorical)


def _check_weights(column: Column) -> None:
    message = None
    if column.kind != "numeric":
        message = f"is a column of the kind {column.kind}"
    elif column.missing:
        message = f"has {column.missing} rows without a number"
    elif (column.low is not None and column.low < 0) or column.high == 0:
        message = f"goes from {column.low:g} to {column.high:g}"
    if message is not None:
        allowed = "numbers of at least 0, not all of them 0, in every row"
        raise InvalidInput.one("data.weights", message, value=column.name, allowed=allowed)


def _check_aside(
    spec: StudySpec, field: str, column: str, names: Sequence[str], targets: Sequence[str], others: dict[str, str]
) -> None:
    """Check a column that divides or weighs the rows: it is not an input, so it may have no other use."""
    if not names:
        raise InvalidInput.one(field, "names a column, but arrays have no columns", value=column, allowed="nothing")
    _check_column(field, column, names, targets)
    for other in ("categorical", "drop"):
        if column in getattr(spec.data, other):
            allowed = [name for name in names if name not in getattr(spec.data, other)]
            raise InvalidInput.one(field, f"is also named in data.{other}", value=column, allowed=allowed)
    if column in others:
        allowed = [name for name in names if name not in others]
        raise InvalidInput.one(field, f"is already used as data.{others[column]}", value=column, allowed=allowed)


def _check_column(field: str, name: str, names: Sequence[str], targets: Sequence[str]) -> None:
    if name in targets:
        message = f"{name!r} is {'the' if len(targets) == 1 else 'a'} target, which can't be an input"
        raise InvalidInput.one(field, message, value=name, allowed=list(names))
    if name not in names:
        raise no_column(field, name, names)


def no_column(field: str, name: str, names: Sequence[str]) -> InvalidInput:
    """The error for a column that does not exist, with the closest name as a hint."""
    close = meant(name, names)
    hint = f"; did you mean {close!r}?" if close else ""
    return InvalidInput.one(field, f"there is no column {name!r}{hint}", value=name, allowed=list(names))


def check_rows(spec: StudySpec, rows: int) -> None:
    """Check that no part of the split is too small, which takes a very small table or a very small fraction.

    A split that the data itself defines is checked when its rows are read.

    Raises:
        InvalidInput: A part would be too small.
    """
    if rows < _MIN_ROWS:
        message = f"has only {rows} rows with a target"
        raise InvalidInput.one("data", message, value=rows, allowed=f"at least {_MIN_ROWS}")
    division = spec.validation
    if spec.data.split is not None or division.given:
        return
    if division.method == NESTED:
        _check_nested_rows(division, rows)
        return
    shares = {"test_fraction": division.test_fraction}
    if division.method == "holdout":
        shares["valid_fraction"] = division.valid_fraction
    for name, share in shares.items():
        if share * rows < _MIN_ROWS_IN_PART:
            message = f"selects fewer than {_MIN_ROWS_IN_PART} of {rows} rows"
            allowed = f"≥ {_MIN_ROWS_IN_PART / rows:.3g}"
            raise InvalidInput.one(f"validation.{name}", message, value=share, allowed=allowed)
    rest = int(rows * (1 - division.test_fraction))
    if division.method == "kfold" and division.folds * _MIN_ROWS_IN_PART > rest:
        message = f"are too many for the {rest} rows outside the test part"
        raise InvalidInput.one("validation.folds", message, value=division.folds, allowed=f"≤ {rest // _MIN_ROWS_IN_PART}")


def _check_nested_rows(division: ValidationSpec, rows: int) -> None:
    most = rows // _MIN_ROWS_IN_PART
    if division.outer_folds > most:
        message = f"are too many for {rows} rows"
        raise InvalidInput.one("validation.outer_folds", message, value=division.outer_folds, allowed=f"≤ {most}")
    rest = rows - -(-rows // division.outer_folds)
    most = rest // _MIN_ROWS_IN_PART
    if division.folds > most:
        message = f"are too many for the {rest} rows outside of an outer fold"
        raise InvalidInput.one("validation.folds", message, value=division.folds, allowed=f"≤ {most}")


def check_division(spec: StudySpec, table: TableInfo) -> None:
    """Check that the columns that divide the rows can: enough groups or times, and the words of a split.

    Raises:
        InvalidInput: They can't, on the field that names the column.
    """
    data, division = spec.data, spec.validation
    folds = division.folds if division.cross_validated else 1
    if data.groups is not None:
        groups = _column(table, data.groups)
        needed = folds + 1 if folds > 1 else 3
        parts = _parts(folds)
        if division.method == NESTED:
            # So that there is one for every fold outside of the largest outer fold.
            needed = max(division.outer_folds, folds + -(-folds // (division.outer_folds - 1)))
            parts = f"{folds} folds outside of each of {division.outer_folds} outer folds"
        if groups.distinct < needed:
            message = f"has {groups.distinct} groups, too few for {parts}"
            raise InvalidInput.one("data.groups", message, value=data.groups, allowed=f"at least {needed} groups")
    if data.time is not None:
        time = _column(table, data.time)
        if time.kind not in ("numeric", "date"):
            ways = f"data.types can say {' or '.join(time.forms)}" if time.forms else "numbers, or times in one form"
            message = f"contains no times that can be read, such as {time.example!r}"
            raise InvalidInput.one("data.time", message, value=data.time, allowed=ways)
        needed = folds + 2
        if time.distinct < needed:
            message = f"has {time.distinct} distinct times, too few for {_parts(folds)}"
            raise InvalidInput.one("data.time", message, value=data.time, allowed=f"at least {needed} distinct times")
    if data.split is not None:
        _check_words(data.split, _column(table, data.split))


def _parts(folds: int) -> str:
    return "a training, a validation and a test part" if folds == 1 else f"{folds} folds and a test part"


def _column(table: TableInfo, name: str) -> Column:
    return next(column for column in table.columns if column.name == name)


def _check_words(name: str, column: Column) -> None:
    known = ", ".join(PARTS)
    words = {text.strip().lower() for text in column.levels or ()}
    unknown = sorted(words - {*PARTS})
    if column.levels is None or unknown or column.missing:
        found = repr(unknown[0]) if unknown else "missing values" if column.missing else f"{column.distinct} values"
        raise InvalidInput.one("data.split", f"contains {found}", value=name, allowed=known)
    parts = {PARTS[word] for word in words}
    if not {0, 2} <= parts:
        lacking = "test" if 2 not in parts else "train"
        raise InvalidInput.one("data.split", f"has no row of the part {lacking}", value=name, allowed="train and test rows")
