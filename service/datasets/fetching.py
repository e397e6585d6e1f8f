"""Fetching what is at an address into one file: `python -m service.datasets.fetching`, a child of `service.apart`.

A file is copied. A folder of Parquet files becomes one Parquet file, with a column for each `key=value` in its paths; one
of `x.npy` and `y.npy` an NPZ file without compression, of which workers map the rows; one of images in folders by class a
ZIP. All are the same again for the same files, and nothing is in memory as a whole. The limits are those of uploads.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from service.addresses import Address, allowed_address
from service.apart import answer_parent
from service.atomic import FULL
from service.datasets.images import ENDINGS as OF_IMAGES
from service.datasets.merging import merge_folder
from service.datasets.places import FIELD, Entry, Source, refuse, source_at, too_large
from service.datasets.uploads import file_format
from service.errors import StorageFull

OF_PARQUET = (".parquet", ".parq", ".pq")
OF_ARRAYS = (".npy",)
_MOST_PARTS, _MOST_ARRAYS, _MOST_IMAGES, _MOST_FILES = 10_000, 9, 50_000, 200_000
_BATCH = 64


def fetch(address: Address, prefixes: Sequence[str], target: Path, scratch: Path, most: int) -> str:
    """Fetch what is at an allowed address into the file ``target``; returns its format.

    Args:
        address: Of a file or folder.
        prefixes: Under which redirects may lead.
        target: The file.
        scratch: An empty directory for parts.
        most: Largest size of the file, and of all parts.

    Raises:
        InvalidInput: It can't be read, or is nothing that makes a data set.
        TooLarge: It is larger than ``most``.
    """
    source = source_at(address, prefixes, most)
    if not source.is_folder():
        if address.name.lower().endswith(OF_ARRAYS):
            refuse("is one array without targets", value=address.shown, allowed="the folder of x.npy and y.npy")
        found = file_format(address.name, FIELD)
        _copy(source.chunks(), target, most)
        return found
    parts, arrays, images = _sorted_out(source)
    if parts:
        _fetch_parts(source, parts, scratch, most)
        merge_folder(scratch, target, most, FIELD)
        return "parquet"
    if arrays:
        _fetch_arrays(source, arrays, target, most)
        return "npz"
    if not images:
        refuse(
            "is a folder without Parquet files, arrays and images",
            value=address.shown,
            allowed="Parquet files, x.npy and y.npy, or images in folders by class",
        )
    _fetch_images(source, images, target, most)
    return "zip"


def _sorted_out(source: Source) -> list[list[Entry]]:
    """The Parquet files of a folder, its arrays, and its images, by name."""
    kinds = [
        (OF_PARQUET, "Parquet files", _MOST_PARTS),
        (OF_ARRAYS, "arrays", _MOST_ARRAYS),
        (OF_IMAGES, "images", _MOST_IMAGES),
    ]
    found: list[list[Entry]] = [[] for _ in kinds]
    for number, entry in enumerate(source.files()):
        path = PurePosixPath(entry.name)
        if _is_log(path):
            refuse("is a table with a log (Delta, Hudi, Iceberg), which may name files that are outdated", value=entry.name)
        if number >= _MOST_FILES:
            refuse(f"is a folder of more than {_MOST_FILES} files")
        if any(part.startswith(("_", ".")) for part in path.parts):
            continue
        for own, (endings, _, _) in zip(found, kinds, strict=True):
            if path.suffix.lower() in endings:
                own.append(entry)
    for own, (_, what, many) in zip(found, kinds, strict=True):
        if len(own) > many:
            refuse(f"is a folder of {len(own)} {what}", value=len(own), allowed=f"at most {many}")
    return [sorted(own, key=_name) for own in found]


def _is_log(path: PurePosixPath) -> bool:
    """Whether it is of the log of a table, which tells which of its Parquet files are still part of it."""
    first = path.parts[0]
    return first in ("_delta_log", ".hoodie") or (first == "metadata" and path.name.endswith(".metadata.json"))


def _name(entry: Entry) -> str:
    return entry.name


def _fetch_parts(source: Source, parts: Sequence[Entry], scratch: Path, most: int) -> None:
    """Copy Parquet files, numbered in their order, into the folders that their keys and values make."""
    left = _room(parts, most)
    for number, entry in enumerate(parts):
        keys = [part for part in PurePosixPath(entry.name).parts[:-1] if "=" in part]
        folder = scratch.joinpath(*keys)
        folder.mkdir(parents=True, exist_ok=True)
        left -= _copy(source.chunks(entry.name), folder / f"{number:05}.parquet", left, most)


def _fetch_arrays(source: Source, arrays: Sequence[Entry], target: Path, most: int) -> None:
    """An NPZ file of the arrays, by the names of their files."""
    left = _room(arrays, most)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for entry in arrays:
            about = zipfile.ZipInfo(PurePosixPath(entry.name).name)
            with archive.open(about, "w", force_zip64=True) as member:
                left -= _write(source.chunks(entry.name), member, left, most)


def _fetch_images(source: Source, images: Sequence[Entry], target: Path, most: int) -> None:
    """A ZIP file of the images, which are packed already."""
    left = _room(images, most)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for start in range(0, len(images), _BATCH):
            names = [entry.name for entry in images[start : start + _BATCH]]
            for name, content in zip(names, source.contents(names), strict=True):
                left -= len(content)
                if left < 0:
                    raise too_large(most)
                archive.writestr(zipfile.ZipInfo(name), content)
    if target.stat().st_size > most:
        raise too_large(most)


def _room(entries: Iterable[Entry], most: int) -> int:
    if sum(entry.size for entry in entries) > most:
        raise too_large(most)
    return most


def _copy(chunks: Iterator[bytes], path: Path, left: int, most: int | None = None) -> int:
    """Write chunks to a file; returns their size."""
    with path.open("wb") as file:
        return _write(chunks, file, left, left if most is None else most)


def _write(chunks: Iterator[bytes], file: IO[bytes], left: int, most: int) -> int:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > left:
            raise too_large(most)
        file.write(chunk)
    return size


def _fetched(request: dict[str, Any]) -> str:
    address = allowed_address(request["address"], request["prefixes"])
    try:
        return fetch(address, request["prefixes"], Path(request["target"]), Path(request["scratch"]), request["most"])
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull("the server has no room for the file; nothing was stored") from None
        refuse(f"can't be stored: {error.strerror}")


if __name__ == "__main__":
    answer_parent(_fetched, FIELD)
