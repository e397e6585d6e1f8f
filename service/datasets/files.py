"""Tables in files: CSV (also with semicolons, tabs or bars; gzip) and Parquet with named columns, NPZ with arrays.

A column of numbers or booleans may hold an empty field, or a usual word for a missing value such as NA. In a column of text
only an empty field is missing: there None and NA may be names. ``missing`` are further words that a user calls missing.

`inspect` describes a file in bounded memory, for the API; `read_frame` reads all of it, for a worker. Errors in a file are
raised as `InvalidInput` on the field ``file``. Pickles are never loaded.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from service.datasets import csvfile
from service.datasets.arrays import inspect_arrays
from service.datasets.images import inspect_images
from service.datasets.tables import MAX_STREAMED_BYTES, MAX_UNPACKED_BYTES, TableInfo, refuse, refuse_many
from service.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

_CELLS_PER_CHUNK = 200_000

# pandas and pyarrow are imported where they are needed: they take 0.4 s and 40 MB, which a service with only built-in data
# sets does not need.


def inspect(path: Path, file_format: str, missing: Sequence[str] = ()) -> TableInfo:
    """Describe a table, in memory that does not grow with it.

    Raises:
        InvalidInput: The file can't be read in that format, or does not contain a usable table.
    """
    if file_format == "npz":
        return inspect_arrays(path)
    if file_format == "zip":
        return inspect_images(path)
    from service.datasets.describe import columns_of, summarize
    from service.datasets.likeness import Sample

    names = _names(path, file_format)
    sample = Sample()
    try:
        found = summarize(sample.passing(_chunks(path, file_format, names, missing)))
        words = [index for index, summary in enumerate(found.values()) if summary.words]
        if words and file_format == "csv":  # read again: chunks before may have been numbers, and words taken for missing
            found.update(summarize(_chunks(path, file_format, names, missing, words)))
        columns = columns_of(found)
        sheet = sample.sheet(columns)
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:  # the errors of pandas and pyarrow have no common base class
        _refuse_unreadable(file_format, error)
    return TableInfo(sample.rows, columns, (len(columns) - 1,), sheet=sheet)


def read_frame(path: Path, file_format: str, missing: Sequence[str] = ()) -> pd.DataFrame:
    """A CSV or Parquet file as a frame with unique, named columns.

    Raises:
        InvalidInput: See `inspect`.
    """
    import pandas as pd

    names = _names(path, file_format)
    try:
        if file_format == "csv":
            frame: pd.DataFrame = pd.read_csv(path, **_csv_options(path, missing), low_memory=False)
            words = [index for index, name in enumerate(frame.columns) if _is_text(frame[name])]
            if words:
                again = pd.read_csv(path, **_csv_options(path, missing, words), low_memory=False)
                frame[again.columns] = again
        else:
            frame = pd.concat(_chunks(path, file_format, names, missing), ignore_index=True)
    except MemoryError:
        raise
    except Exception as error:  # as above
        _refuse_unreadable(file_format, error)
    frame.columns = frame.columns.map(str)
    return frame.reset_index(drop=True)


def read_chunks(path: Path, file_format: str, missing: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """The rows of `read_frame` in parts, of which the types of columns may differ.

    Raises:
        InvalidInput: See `inspect`.
    """
    return _chunks(path, file_format, _names(path, file_format), missing)


def unpacked_bytes(path: Path) -> int:
    """Of a Parquet file as numbers of eight bytes.

    Raises:
        InvalidInput: See `inspect`.
    """
    import pyarrow.parquet as pq

    names = _parquet_names(path)
    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows) * len(names) * 8


def _names(path: Path, file_format: str) -> list[str]:
    """The column names of a file, after a check of its form."""
    match file_format:
        case "csv":
            return csvfile.header(path)
        case "parquet":
            return _parquet_names(path)
        case "feather":
            return _feather_names(path)
        case "xlsx":
            sheet = _sheet(path, 1)
            return _usable_names(list(map(str, sheet.columns)), len(sheet), MAX_UNPACKED_BYTES)
        case _:
            raise AssertionError(f"{file_format} is not a format of tables")


def _csv_options(path: Path, missing: Sequence[str], words: Sequence[int] = ()) -> dict[str, Any]:
    """For all columns, or for those with the indices ``words`` only, as text."""
    options: dict[str, Any] = {"skipinitialspace": True, "index_col": False, "sep": csvfile.separator(path)}
    options["compression"] = csvfile.compression(path)
    if not words:
        return options | {"na_values": list(missing)}
    return options | {"usecols": list(words), "dtype": str, "keep_default_na": False, "na_values": ["", *missing]}


def _is_text(column: pd.Series[Any]) -> bool:
    """Whether a column is text: neither numbers nor booleans, both of which may have gaps."""
    if column.dtype.kind != "O":
        return False
    return any(isinstance(value, str) for value in column.dropna().unique())


def _parquet_names(path: Path) -> list[str]:
    """The column names without the columns of pandas' row labels."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except Exception as error:  # as above
        _refuse_unreadable("parquet", error)
    return _table_names(schema, rows, MAX_STREAMED_BYTES)


def _feather_names(path: Path) -> list[str]:
    """The column names of an Arrow file (Feather, version 2)."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            rows = sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))
            return _table_names(reader.schema, rows, MAX_UNPACKED_BYTES)
    except InvalidInput:
        raise
    except Exception as error:  # as above
        _refuse_unreadable("feather", error)


def _sheet(path: Path, rows: int | None = None) -> pd.DataFrame:
    """The first sheet of a workbook, or its first ``rows``; the row before them has the names."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles that openpyxl does not know
        try:
            return pd.read_excel(path, sheet_name=0, engine="openpyxl", nrows=rows, na_values=[""], keep_default_na=False)
        except MemoryError:
            raise
        except Exception as error:  # as above
            _refuse_unreadable("xlsx", error)


def _table_names(schema: Any, rows: int, most: int) -> list[str]:
    """The names of the columns of an Arrow schema without those of pandas' row labels."""
    import pyarrow as pa

    names = [str(name) for name in schema.names]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        refuse("has several columns with the same name", value=twice)
    nested = [field.name for field in schema if pa.types.is_nested(field.type)]
    if nested:
        refuse("has columns with lists or records", value=nested, allowed="one value per cell")
    labels = (schema.pandas_metadata or {}).get("index_columns", [])
    return _usable_names([name for name in names if name not in labels], rows, most)


def _usable_names(names: list[str], rows: int, most: int) -> list[str]:
    if len(names) < 2:
        refuse("needs at least two columns: a target and a feature", value=names)
    if rows == 0:
        refuse("has no rows")
    if rows * len(names) * 8 > most:
        refuse(f"unpacks to {rows} rows of {len(names)} columns", value=rows, allowed=f"at most {most} bytes")
    refuse_many(rows, len(names))
    return names


def _chunks(
    path: Path, file_format: str, names: list[str], missing: Sequence[str], words: Sequence[int] = ()
) -> Iterator[pd.DataFrame]:
    """The table in chunks; with ``words`` only the columns of a CSV file with these indices, as text."""
    import pandas as pd

    size = max(1000, _CELLS_PER_CHUNK // len(names))
    if file_format == "csv":
        with pd.read_csv(path, **_csv_options(path, missing, words), chunksize=size, low_memory=False) as reader:
            yield from reader
        return
    if file_format == "xlsx":
        yield _plain(_sheet(path), missing)
        return
    for batch in _batches(path, file_format, names, size):
        yield _plain(batch.to_pandas(ignore_metadata=True), missing)


def _batches(path: Path, file_format: str, names: list[str], size: int) -> Iterator[Any]:
    """Record batches of the named columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file_format == "parquet":
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=size, columns=names)
        return
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            whole = reader.get_batch(number).select(names)
            for start in range(0, whole.num_rows, size):
                yield whole.slice(start, size)


def _plain(frame: pd.DataFrame, missing: Sequence[str]) -> pd.DataFrame:
    """Convert decimals, which pandas stores as objects, to floats; without the words that are ``missing``."""
    from decimal import Decimal

    for name in frame.columns:
        values = frame[name].dropna()
        if len(values) and isinstance(values.iloc[0], Decimal):
            frame[name] = frame[name].astype(float)
        if missing:
            frame[name] = frame[name].mask(frame[name].astype(str).isin(missing))
    return frame


def _refuse_unreadable(file_format: str, error: Exception) -> NoReturn:
    text = str(error).strip() or type(error).__name__
    if "out of memory" in text:  # of pandas' tokenizer
        raise MemoryError(text) from None
    refuse(f"cannot be read as {file_format}: {text.splitlines()[0]}")
