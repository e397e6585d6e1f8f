"""NPZ files: the arrays `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`, which are concatenated. NumPy only.

An `x` that lies in the file without compression, as `np.savez` writes it, may be larger than memory: see `Mapped`.

Pickles are never loaded: an array of Python objects is refused because of its header. Names are case-insensitive. Shapes: x
is (rows, features), (rows, time, channels), or for images (rows, h, w), (rows, h, w, c) or (rows, c, h, w); y is (rows,), or
(rows, targets);
sequences of unequal length are padded at the end, and `len` or `lengths` (rows,) contains the lengths without padding.
"""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.datasets.mapped import Mapped, Place
from service.datasets.tables import MAX_TARGETS, MAX_UNPACKED_BYTES, Column, TableInfo, names_of_targets, refuse

_BROKEN = (
    ValueError,
    OSError,
    EOFError,
    RuntimeError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
_PARTS = (("train",), ("val", "valid", "validation"), ("test",))
_BLOCK = 1 << 22
_LOCAL = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class Arrays:
    """The content of an NPZ file; shapes as in the module's docstring.

    Attributes:
        x: Features, an array or `Mapped`.
        y: (rows,) targets, or (rows, t) of several.
        lengths: (rows,) lengths of padded sequences without padding, if the file has them.
        part: (rows,) 0, 1 or 2 for training, validation and test rows, if the file distinguishes them.
    """

    x: Any
    y: NDArray[Any]
    lengths: NDArray[np.int64] | None = None
    part: NDArray[np.int8] | None = None


@dataclass(frozen=True)
class _Header:
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    begin: int | None
    """Of the array's numbers in the file, where they are neither compressed nor in columns."""

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class _Part:
    """Names of the arrays of one part of the rows."""

    number: int
    x: str
    y: str
    lengths: str | None


def inspect_arrays(path: Path) -> TableInfo:
    """Describe an NPZ file; `x` is read in blocks, so that memory does not grow with it.

    Raises:
        InvalidInput: See `load_arrays`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            headers, parts, shape = _layout(archive)
            y = _targets(archive, headers, parts)
            missing = sum(_missing(archive, headers[part.x]) for part in parts)
    except _BROKEN as error:
        refuse(f"cannot be read as npz: {error}")
    each = y[:, None] if y.ndim == 1 else y
    targets = [_described(name, own) for name, own in zip(names_of_targets(each.shape[1]), each.T, strict=True)]
    return TableInfo(len(y), (Column("x", "numeric", missing, 0, False), *targets), shape)


def _described(name: str, y: NDArray[Any]) -> Column:
    """The column of a target (rows,)."""
    present = y[~np.isnan(y)] if y.dtype.kind == "f" else y
    numeric = y.dtype.kind in "iuf"
    whole = numeric and (y.dtype.kind != "f" or bool(np.all(present == np.floor(present))))
    return Column(name, "numeric" if numeric else "categorical", len(y) - len(present), len(np.unique(present)), whole)


def load_arrays(path: Path, most: float = math.inf) -> Arrays:
    """Read an NPZ file without converting types; an `x` of more than ``most`` bytes is `Mapped`, where it can be.

    Raises:
        InvalidInput: It is not an NPZ file, contains Python objects, is too large when unpacked, or has arrays that do not
            fit together.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            headers, parts, _ = _layout(archive)
            y = _targets(archive, headers, parts)
            own = [headers[part.x] for part in parts]
            x = _mapped(path, own, most) or _joined([_read(archive, header) for header in own])
            padded = [part.lengths for part in parts if part.lengths is not None]
            lengths = _joined([_read(archive, headers[name]) for name in padded]) if len(padded) == len(parts) else None
    except _BROKEN as error:
        refuse(f"cannot be read as npz: {error}")
    part = None
    if len(parts) > 1:
        part = np.concatenate([np.full(headers[each.x].shape[0], each.number, dtype=np.int8) for each in parts])
    return Arrays(x, y, lengths.astype(np.int64) if lengths is not None else None, part)


def read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """`x` (rows, features …) as float32 and `y` (rows,), or (rows, targets).

    Raises:
        InvalidInput: See `load_arrays`.
    """
    arrays = load_arrays(path)
    return arrays.x[:].astype(np.float32), arrays.y


def _mapped(path: Path, headers: list[_Header], most: float) -> Mapped | None:
    """The arrays of one type and more than ``most`` bytes, if they lie in the file as they are."""
    alike = len({header.dtype for header in headers}) == 1
    if not alike or sum(header.size for header in headers) <= most or any(header.begin is None for header in headers):
        return None
    return Mapped([Place(path, header.begin or 0, header.shape, header.dtype) for header in headers])


def _layout(archive: zipfile.ZipFile) -> tuple[dict[str, _Header], list[_Part], tuple[int, ...]]:
    """The headers of all arrays by lower-case name, the parts of the rows, and the shape of one example."""
    headers = _headers(archive)
    parts = _parts(headers)
    if not parts:
        refuse(
            "needs the arrays x and y",
            value=sorted(headers),
            allowed="x (rows, features …) and y (rows,) or (rows, targets), or x_train, y_train, x_test, y_test",
        )
    shapes = {headers[part.x].shape[1:] for part in parts}
    for part in parts:
        _refuse_unfit(headers, part)
    if len(shapes) > 1:
        refuse("has parts of different shapes", value=sorted(shapes), allowed="one shape of examples")
    return headers, parts, shapes.pop()


def _headers(archive: zipfile.ZipFile) -> dict[str, _Header]:
    headers: dict[str, _Header] = {}
    for entry in archive.infolist():
        name = entry.filename.removesuffix(".npy").lower()
        header = _header(archive, entry)
        if header.dtype.hasobject:
            refuse(f"cannot be read as npz: {name} contains Python objects, and pickles are never loaded", value=name)
        if name in headers:
            refuse("has several arrays with the same name", value=name)
        # NumPy allocates what the header declares, which must not exceed the data in the file.
        if header.size != entry.file_size - header.offset:
            refuse(f"cannot be read as npz: the size of {name} differs from that in its header", value=name)
        headers[name] = header
    size = sum(header.size for header in headers.values() if header.begin is None)
    if size > MAX_UNPACKED_BYTES:
        refuse(f"unpacks to {size} bytes", value=size, allowed=f"at most {MAX_UNPACKED_BYTES}")
    return headers


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Header:
    member = entry.filename
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, by_column, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{member} has the unknown format version {version}")
        offset = file.tell()
    as_it_is = entry.compress_type == zipfile.ZIP_STORED and not (by_column and len(shape) > 1)
    begin = _content_of(archive, entry) + offset if as_it_is else None
    return _Header(member, shape, dtype, offset, begin)


def _content_of(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Where in the file a member begins, after its local header. Reference: PKWARE, "APPNOTE", 4.3.7."""
    assert archive.fp is not None, "the archive is open"
    archive.fp.seek(entry.header_offset)
    local = archive.fp.read(_LOCAL.size)
    *_, name, extra = _LOCAL.unpack(local)
    return int(entry.header_offset + _LOCAL.size + name + extra)


def _parts(headers: Mapping[str, _Header]) -> list[_Part]:
    found = [_part(headers, 0, "")]
    if found[0] is None:
        found = [
            next((part for word in words if (part := _part(headers, number, f"_{word}"))), None)
            for number, words in enumerate(_PARTS)
        ]
    return [part for part in found if part is not None]


def _part(headers: Mapping[str, _Header], number: int, ending: str) -> _Part | None:
    x, y = f"x{ending}", f"y{ending}"
    if x not in headers or y not in headers:
        return None
    lengths = next((name for name in (f"len{ending}", f"lengths{ending}") if name in headers), None)
    return _Part(number, x, y, lengths)


def _refuse_unfit(headers: Mapping[str, _Header], part: _Part) -> None:
    x, y = headers[part.x], headers[part.y]
    flat = len(y.shape) == 1 or (len(y.shape) == 2 and 1 <= y.shape[1] <= MAX_TARGETS)
    if not 2 <= len(x.shape) <= 4 or not flat or x.shape[0] != y.shape[0] or math.prod(x.shape) == 0:
        refuse(
            "has arrays with shapes that do not fit",
            value={part.x: x.shape, part.y: y.shape},
            allowed="x (rows, features), (rows, time, channels) or images (rows, h, w), (rows, h, w, c), (rows, c, h, w); "
            f"y (rows,), or (rows, targets) with at most {MAX_TARGETS} of them",
        )
    if x.dtype.kind not in "iufb":
        refuse("has features that are not numbers", value=str(x.dtype), allowed="integers or floats")
    if y.dtype.kind not in "iufbUS":
        refuse("has targets that are neither numbers nor text", value=str(y.dtype), allowed="numbers or text")
    if part.lengths is not None:
        lengths = headers[part.lengths]
        if lengths.shape != x.shape[:1] or lengths.dtype.kind not in "iu":
            refuse("has lengths that do not fit", value=lengths.shape, allowed=f"integers with the shape ({x.shape[0]},)")


def _targets(archive: zipfile.ZipFile, headers: Mapping[str, _Header], parts: list[_Part]) -> NDArray[Any]:
    if len({headers[part.y].shape[1:] or (1,) for part in parts}) > 1:
        refuse("has parts with different numbers of targets", value=[headers[part.y].shape for part in parts])
    y = _joined([_squeezed(_read(archive, headers[part.y])) for part in parts])
    if y.ndim == 2 and y.dtype.kind in "iufb" and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        message = "has a one-hot y: each of its rows has a single 1, so the columns are classes, not targets"
        refuse(message, value=y.shape, allowed="the number of the class, y (rows,)")
    return y.astype(np.str_) if y.dtype.kind == "S" else y


def _squeezed(y: NDArray[Any]) -> NDArray[Any]:
    """(rows,) of a single target."""
    return y.reshape(-1) if y.ndim == 1 or y.shape[1] == 1 else y


def _read(archive: zipfile.ZipFile, header: _Header) -> NDArray[Any]:
    with archive.open(header.member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _joined(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _missing(archive: zipfile.ZipFile, header: _Header) -> int:
    """Number of NaN values of an array; reading it also verifies that it is complete."""
    return sum(
        int(np.isnan(np.frombuffer(block, dtype=header.dtype)).sum()) if header.dtype.kind == "f" else 0
        for block in _blocks(archive, header)
    )


def _blocks(archive: zipfile.ZipFile, header: _Header) -> Iterator[bytes]:
    with archive.open(header.member) as file:
        file.read(header.offset)
        while block := file.read(_BLOCK - _BLOCK % header.dtype.itemsize):
            yield block
