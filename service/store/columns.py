"""Values that a database's driver returns, as columns of Arrow; and the type that holds those of several batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from service.errors import InvalidInput

_UNFIT = (bytes, bytearray, memoryview, list, tuple, dict, set)
_AS: Mapping[type, Callable[[Any], Any]] = {
    timedelta: timedelta.total_seconds,
    time_of_day: time_of_day.isoformat,
    UUID: str,
    datetime: lambda value: value if value.tzinfo is None else value.astimezone(UTC),
}
"""Values in a form that tables have: durations are seconds, times with a zone are those of UTC."""


def array_of(name: str, values: Sequence[Any]) -> pa.Array:
    """A column of values, as numbers, truth values, dates, times or text.

    Raises:
        InvalidInput: It has bytes, lists or records, which no study can use.
    """
    kinds = {type(value) for value in values if value is not None}
    for kind in kinds:
        if issubclass(kind, _UNFIT):
            message = f"has the column {name!r} with values of the type {kind.__name__}"
            raise InvalidInput.one("query", message, value=name, allowed="one number, text or time per cell")
    if kinds & {*_AS}:
        values = [value if (form := _AS.get(type(value))) is None else form(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        numbers = kinds <= {int, float, Decimal}  # of which one is not finite, or has too many digits
        other, kind = (float, pa.float64()) if numbers else (str, pa.string())
        return pa.array([None if value is None else other(value) for value in values], kind)


def common_type(types: Sequence[pa.DataType]) -> pa.DataType:
    """The type that holds the values of all; text where numbers and words are mixed, or there is no value."""
    schemas = [pa.schema([("column", each)]) for each in types]
    try:
        found = pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.float64() if all(map(_is_number, types)) else pa.string()
    return pa.string() if pa.types.is_null(found) else found


def _is_number(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null))


def as_type(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """A column with the type that all batches have."""
    return column if column.type == wanted else column.cast(wanted)
