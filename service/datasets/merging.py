"""Parquet files of one table, merged into one file of a limited size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pds
import pyarrow.parquet as pq

from service.datasets.tables import MAX_COLUMNS, MAX_ROWS, MAX_STREAMED_BYTES
from service.errors import InvalidInput, TooLarge

_ROWS = 1 << 16


def merge_folder(folder: Path, target: Path, most: int, field: str) -> None:
    """Merge the Parquet files below a folder in the order of their names, with a column for each `key=value` of their paths.

    A column that some of them lack is missing there; types are widened to one that holds all values. Reference: Apache
    Hive's layout of partitions, as `pyarrow.dataset` reads it.

    Raises:
        InvalidInput: One can't be read, they have columns of types that don't fit, or there are too many rows.
        TooLarge: The file would be larger than ``most`` bytes.
    """
    try:
        schema, fragments = _fragments(folder)
        batches = (
            batch
            for fragment in fragments
            for batch in fragment.to_batches(schema=schema, batch_size=_ROWS, use_threads=False)
        )
        write_batches(batches, schema, target, most, field)
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:  # pyarrow's errors have no common base class
        text = (str(error).strip() or type(error).__name__).splitlines()[0].replace(f"{folder}/", "")
        raise InvalidInput.one(field, f"has Parquet files that don't make one table: {text}") from None


def write_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, target: Path, most: int, field: str) -> None:
    """Write batches of a schema to a Parquet file; with the limits of `merge_folder`."""

    def check(found: int, allowed: int, what: str, kind: Callable[..., InvalidInput] = InvalidInput.one) -> None:
        if found > allowed:
            raise kind(field, f"has more than {allowed} {what}", allowed=f"at most {allowed}")

    check(len(schema), MAX_COLUMNS, "columns")
    rows = size = 0
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in batches:
            rows, size = rows + batch.num_rows, size + batch.nbytes
            check(rows, MAX_ROWS, "rows")
            check(size, MAX_STREAMED_BYTES, "bytes when unpacked")
            writer.write_batch(batch)
            check(target.stat().st_size, most, "bytes", TooLarge.one)
    check(target.stat().st_size, most, "bytes", TooLarge.one)


def _fragments(folder: Path) -> tuple[pa.Schema, list[Any]]:
    """The files as pyarrow's fragments, and the columns of all of them."""
    found = pds.dataset(str(folder), format="parquet", partitioning="hive")
    fragments = sorted(found.get_fragments(), key=lambda each: Path(each.path).name)
    own = [_plain(fragment.physical_schema) for fragment in fragments]
    names = {name for schema in own for name in schema.names}
    keys = pa.schema([field for field in found.schema if field.name not in names])
    return pa.unify_schemas([*own, keys], promote_options="permissive"), fragments


def _plain(schema: pa.Schema) -> pa.Schema:
    """A schema in which text is of one type, however a writer has stored it."""
    fields = []
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        fields.append(field.with_type(pa.string() if pa.types.is_large_string(kind) else kind))
    return pa.schema(fields, schema.metadata)
