"""Rows of a query as a Parquet file: `python -m service.store.queries`, a child of `service.apart`.

Types are those of the rows, widened where rows differ, which is known only after the last one: so rows are written to
several files as they come, and these to one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.engine import URL

from service.apart import answer_parent
from service.datasets.merging import write_batches
from service.datasets.tables import MAX_ROWS, MAX_UNPACKED_BYTES
from service.errors import InvalidInput, TooLarge
from service.store.columns import array_of, as_type, common_type
from service.store.databases import FIELD, check_database, rows_of

_ROWS = 1 << 14


def read_query(url: URL, query: str, target: Path, scratch: Path, most: int, seconds: float) -> None:
    """Write the rows of one query to the Parquet file ``target``.

    Args:
        url: Of the database; see `check_database`.
        query: One SELECT.
        target: The file.
        scratch: An empty directory for parts.
        most: Largest size of the file, in bytes.
        seconds: After which the database ends the query.

    Raises:
        InvalidInput: It is not one SELECT, the database refuses it, or it has no rows or too many.
        TooLarge: The file would be larger than ``most``.
    """
    with rows_of(url, query, seconds) as result:
        names = [str(column[0]) for column in result.cursor.description or ()] if result.cursor is not None else []
        parts = _spool(names, result.partitions(_ROWS), scratch, most)
    schema = pa.schema([(name, common_type([part.field(name).type for part in parts.values()])) for name in names])
    write_batches(_cast(parts, schema), schema, target, most, FIELD)


def _spool(names: Sequence[str], partitions: Iterator[Sequence[Any]], scratch: Path, most: int) -> dict[Path, pa.Schema]:
    """Write rows to files as they come, each with the types of its rows; returns their schemas."""
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise InvalidInput.one(FIELD, "has several columns with the same name", value=twice, allowed="names given by AS")
    found: dict[Path, pa.Schema] = {}
    rows = unpacked = packed = 0
    for partition in partitions:
        columns = zip(*partition, strict=True)
        arrays = [array_of(name, values) for name, values in zip(names, columns, strict=True)]
        table = pa.Table.from_arrays(arrays, names=list(names))
        path = scratch / f"{len(found):06}.parquet"
        pq.write_table(table, path, compression="zstd")
        found[path] = table.schema
        rows, unpacked, packed = rows + table.num_rows, unpacked + table.nbytes, packed + path.stat().st_size
        for reached, allowed, what in ((rows, MAX_ROWS, "rows"), (unpacked, MAX_UNPACKED_BYTES, "bytes when unpacked")):
            if reached > allowed:
                raise InvalidInput.one(FIELD, f"has more than {allowed} {what}", allowed=f"at most {allowed}")
        if packed > 2 * most:  # together they may be smaller
            raise TooLarge.one(FIELD, f"has more than {most} bytes", allowed=f"at most {most}")
    if not found:
        raise InvalidInput.one(FIELD, "has no rows")
    return found


def _cast(parts: Mapping[Path, pa.Schema], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for path in parts:
        table = pq.read_table(path)
        columns = [as_type(table.column(field.name), field.type) for field in schema]
        yield from pa.Table.from_arrays(columns, schema=schema).to_batches()


def _read(request: dict[str, Any]) -> None:
    url = check_database(request["database"], request["url"])
    target, scratch = Path(request["target"]), Path(request["scratch"])
    read_query(url, request["query"], target, scratch, request["most"], request["seconds"])


if __name__ == "__main__":
    answer_parent(_read, FIELD)
