"""Data sets that are fetched: from an address, or as the rows of a query. In a process of its own, within limits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from service.addresses import allowed_address
from service.apart import Limits, Turns, run_apart
from service.api.bodies import JsonModel
from service.atomic import PART
from service.datasets import StoredFile
from service.datasets.uploads import file_format, keep, receiving
from service.errors import InvalidInput
from service.settings import Settings
from service.suggestions import meant

_SECONDS, _BYTES_PER_SECOND = 600.0, 10e6
"""In which all must have arrived, and how fast what may be large."""
_QUERY_SECONDS = 300.0
"""After which a database ends a query."""
_MEGABYTES = 3072
_MOST_QUERY = 100_000

_turns = Turns(2, 4, "data sets")


class DatasetFrom(JsonModel):
    """Where a data set is: at an `address`, or in a `database` as the rows of a `query`."""

    address: str | None = Field(
        None,
        description="Of a file, or of a folder with Parquet files, with x.npy and y.npy, or with images in folders by "
        "class; with a prefix of REGSEARCH_DATA_PREFIXES.",
    )
    database: str | None = Field(None, description="One of REGSEARCH_DATABASES.")
    query: str | None = Field(None, description="One SELECT.")
    name: str | None = Field(None, max_length=200, description="Display name; default: the file's or the database's.")


@dataclass(frozen=True)
class Fetched:
    """A stored file, what it would be called, and where it is from."""

    stored: StoredFile
    filename: str
    source: Mapping[str, str]
    field: str
    """On which its problems are told."""


def fetch(wanted: DatasetFrom, settings: Settings, directory: Path) -> Fetched:
    """Store what is wanted in a directory.

    Raises:
        InvalidInput: It is not allowed, can't be read, or is nothing that makes a data set.
        TooLarge: It is larger than the operator's limit.
        StorageFull: The disk is full.
        NotReady: Too many others are being fetched.
    """
    if (wanted.address is None) == (wanted.database is None and wanted.query is None):
        raise InvalidInput.one("body", "must have either an address, or a database and a query", allowed="one of both")
    if wanted.address is not None:
        return _from_address(wanted.address, settings, directory)
    return _from_database(wanted, settings, directory)


def _from_address(text: str, settings: Settings, directory: Path) -> Fetched:
    address = allowed_address(text, settings.data_prefixes)
    request = {"address": address.whole, "prefixes": settings.data_prefixes}
    stored = _stored("service.datasets.fetching", request, settings, directory, "address")
    return Fetched(stored, _filename(address.name, stored.format), {"address": address.shown}, "address")


def _filename(name: str, ending: str) -> str:
    """What a file is called; of a folder, the name with the ending of the file that was made of it."""
    try:
        file_format(name, "address")
    except InvalidInput:
        return f"{name}.{ending}"
    return name


def _from_database(wanted: DatasetFrom, settings: Settings, directory: Path) -> Fetched:
    name, query = wanted.database, wanted.query
    if name is None or query is None:
        field = "database" if name is None else "query"
        raise InvalidInput.one(field, "is required", allowed="a database and a query")
    known = list(settings.databases)
    if name not in known:
        close = meant(name, known)
        hint = f"; did you mean {close!r}?" if close else ""
        message = f"is none that the operator names (REGSEARCH_DATABASES){hint}"
        raise InvalidInput.one("database", message, value=name, allowed=known or "none")
    if len(query) > _MOST_QUERY:
        raise InvalidInput.one("query", f"must have at most {_MOST_QUERY} characters", value=len(query), allowed=_MOST_QUERY)
    request = {
        "database": name,
        "url": settings.databases[name].get_secret_value(),
        "query": query,
        "seconds": _QUERY_SECONDS,
    }
    stored = _stored("service.store.queries", request, settings, directory, "query")
    return Fetched(stored, f"{name}.parquet", {"database": name, "query": query}, "query")


def _stored(module: str, request: dict[str, Any], settings: Settings, directory: Path, field: str) -> StoredFile:
    """What a module fetches, which tells the format if it is not Parquet."""
    with receiving(directory) as target, tempfile.TemporaryDirectory(dir=directory, suffix=PART) as scratch:
        places = {"target": str(target.absolute()), "scratch": str(Path(scratch).absolute())}
        request |= {**places, "most": int(settings.max_upload_mb * 2**20)}
        seconds = max(_SECONDS, request["most"] / _BYTES_PER_SECOND)
        limits = Limits(seconds, seconds, _MEGABYTES)
        found = run_apart(module, request, limits, _turns, field=field)
        return keep(target, found or "parquet")
