"""Objects that are the files of a folder, which API and workers have in common; what is read is the file itself."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from service.atomic import sweep_parts, write_whole
from service.objects.base import Objects, OtherContent, has_digest


class LocalObjects(Objects):
    """A folder of this machine, or one that it shares with others."""

    remote = False

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def arriving(self, folder: str) -> Iterator[Path]:
        """The folder itself: a file gets its place by being renamed."""
        yield self._root / folder

    def put(self, name: str, path: Path, *, new: bool = True) -> bool:
        """See `Objects.put`."""
        place = self._root / name
        if path == place:
            return new
        if place.exists():
            return False
        with path.open("rb") as file:
            self.write(name, lambda out: shutil.copyfileobj(file, out))
        return True

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """See `Objects.write`."""
        place = self._root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, write)

    @contextmanager
    def reading(self, name: str, digest: str = "") -> Iterator[Path]:
        """See `Objects.reading`."""
        place = self._root / name
        place.stat()
        if digest and not has_digest(place, digest):
            raise OtherContent(f"{name} has been changed")
        yield place

    def delete(self, name: str) -> None:
        """See `Objects.delete`."""
        (self._root / name).unlink(missing_ok=True)

    def names(self, folder: str) -> Sequence[str]:
        """See `Objects.names`; with files in part."""
        return [f"{folder}/{path.name}" for path in (self._root / folder).glob("*") if path.is_file()]

    def sweep(self) -> None:
        """See `Objects.sweep`."""
        for folder in ("datasets", "models"):
            sweep_parts(self._root / folder)

    def check(self) -> str:
        """See `Objects.check`."""
        name = f"probes/{uuid.uuid4().hex}"
        self.write(name, lambda file: file.write(b"regsearch"))
        self.delete(name)
        (self._root / "probes").rmdir()
        return f"{self._root.absolute()} can be written"
