"""Writing the archive of a study as it is sent: a ZIP file that is nowhere as a whole.

The same study makes the same bytes: entries have the time at which it ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from service.result.portable import (
    ADVICE,
    DATA_FOLDER,
    FORMAT,
    MANIFEST,
    MODEL,
    ONNX,
    RESULT,
    SPEC,
    STUDY,
    TRIALS,
    VERSION,
    DataPart,
    FilePart,
    Manifest,
    TrialPart,
)
from service.store.portable import StudyParts

_CHUNK = 1 << 20
_FIRST_YEAR = 1980
"""Of times in ZIP files."""


class _Pipe(RawIOBase):
    """What is written can be taken out once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last call."""
        found = b"".join(self._parts)
        self._parts.clear()
        return found


@dataclass(frozen=True)
class DataFile:
    """A data set that is to be in an archive."""

    path: Path
    about: DataPart


def archive(
    parts: StudyParts, trials: Iterable[TrialPart], models: Mapping[str, BinaryIO], data: DataFile | None
) -> Iterator[bytes]:
    """The archive of a study in pieces, with the files of its models by their names in it, with its data set or without."""
    pipe, files = _Pipe(), {}
    ended = datetime.fromtimestamp(parts.study.finished_at, UTC)
    moment = ended.timetuple()[:6] if ended.year >= _FIRST_YEAR else (_FIRST_YEAR, 1, 1, 0, 0, 0)
    with ZipFile(pipe, "w") as whole:
        for name, pieces in _contents(parts, trials, models, data.path if data else None):
            digest, size = hashlib.sha256(), 0
            with whole.open(_entry(name, moment), "w", force_zip64=True) as entry:
                for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    entry.write(piece)
                    if found := pipe.taken():
                        yield found
            files[name] = FilePart(bytes=size, sha256=digest.hexdigest())
        versions: dict[str, str | None] = {name: version(name) for name in ("regsearch", "optuna")}
        about = data.about if data else None
        manifest = Manifest(format=FORMAT, version=VERSION, study=parts.origin, versions=versions, data=about, files=files)
        whole.writestr(_entry(MANIFEST, moment), manifest.model_dump_json(indent=2))
    yield pipe.taken()


def _entry(name: str, moment: tuple[Any, ...]) -> ZipInfo:
    entry = ZipInfo(name, moment)
    packed = name in (MODEL, ONNX) or name.endswith((".zip", ".npz", ".xlsx", ".parquet"))
    entry.compress_type = ZIP_STORED if packed else ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _contents(
    parts: StudyParts, trials: Iterable[TrialPart], models: Mapping[str, BinaryIO], data: Path | None
) -> Iterator[tuple[str, Iterable[bytes]]]:
    """The files by name, but for the manifest."""
    yield STUDY, [parts.study.model_dump_json(indent=2).encode()]
    for name, text in ((SPEC, parts.spec), (RESULT, parts.result), (ADVICE, parts.advice)):
        if text is not None:
            yield name, [json.dumps(json.loads(text), indent=1).encode()]
    yield TRIALS, (f"{trial.model_dump_json()}\n".encode() for trial in trials)
    for name, file in models.items():
        yield name, pieces_of(file)
    if data is not None:
        with data.open("rb") as file:
            yield f"{DATA_FOLDER}{data.name}", pieces_of(file)


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """What is left of a file, a megabyte at a time."""
    while piece := file.read(_CHUNK):
        yield piece


def opened_file(holding: ExitStack, reading: AbstractContextManager[Path]) -> BinaryIO:
    """A file that is held, open: it is read to its end even if it is deleted meanwhile."""
    return holding.enter_context(holding.enter_context(reading).open("rb"))


def while_held(holding: ExitStack, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces of files that are sent, while the files are held."""
    with holding:
        yield from pieces
