"""Objects in a store that fsspec knows: S3 and what speaks like it, Google's and Azure's.

Such stores show an object when all of it is there, and never a part of it. What has its hash in its name is checked when
it arrives, and each time its copy is used; what may change has its hash at its end.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from service.addresses import Address
from service.atomic import ABANDONED_SECONDS, FULL, PART, sweep_parts
from service.errors import RegsearchError, StorageFull
from service.objects.base import Objects, ObjectsUnavailable, OtherContent, has_digest
from service.objects.cache import Cache
from service.objects.stores import PACKAGES, kind_of

T = TypeVar("T")

_PART_BYTES = 8 << 20
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError")


@dataclass(frozen=True)
class _Store:
    """What fsspec makes of an address."""

    files: Any
    root: str

    def place(self, name: str) -> str:
        return f"{self.root}/{name}"


class RemoteObjects(Objects):
    """Objects below an address.

    Args:
        address: Of a bucket, or of a prefix in one.
        cache: A directory of this machine for copies.
        cache_bytes: Their limit.
        patience_seconds: How long a store that does not answer is asked again.
        sleep: Waits for a number of seconds between two attempts.
    """

    remote = True

    def __init__(
        self,
        address: Address,
        cache: Path,
        cache_bytes: int,
        *,
        patience_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._address = address
        self._scratch = cache / "arriving"
        self._cache = Cache(cache / "copies", cache_bytes)
        self._patience = patience_seconds
        self._sleep = sleep
        self._options = {"chunksize": _PART_BYTES} if address.protocol == "s3" else {}

    @contextmanager
    def arriving(self, folder: str) -> Iterator[Path]:
        """See `Objects.arriving`."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch, suffix=PART) as directory:
            yield Path(directory)

    def put(self, name: str, path: Path, *, new: bool = True) -> bool:
        """See `Objects.put`."""
        size = path.stat().st_size

        def work(store: _Store) -> bool:
            known = _size(store, name)
            if known != size:
                _put(store, name, path, self._options)
            return known is None

        return self._asked(work, writing=True)

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """See `Objects.write`."""
        with self.arriving(name) as directory:
            path = directory / "object"
            with path.open("wb") as file:
                write(file)
            _seal(path)
            self._asked(partial(_put, name=name, path=path, options=self._options), writing=True)

    @contextmanager
    def reading(self, name: str, digest: str = "") -> Iterator[Path]:
        """See `Objects.reading`; what may change is fetched every time."""
        if not digest:
            with self.arriving(name) as directory:
                path = directory / "object"
                self._fetch(name, path, "")
                if not _unsealed(path):
                    raise OtherContent(f"{name} in {self._address.shown} is torn")
                yield path
            return
        arrived = False

        def fetch(path: Path) -> None:
            nonlocal arrived
            self._fetch(name, path, digest)
            arrived = True

        with self._cache.holding(name, fetch) as path:
            damaged = not arrived and not has_digest(path, digest)
            if not damaged:
                yield path
                return
            self._cache.drop(name)
        with self._cache.holding(name, fetch) as path:
            yield path

    def delete(self, name: str) -> None:
        """See `Objects.delete`; copies on other machines go by and by."""

        def work(store: _Store) -> None:
            with suppress(FileNotFoundError):
                store.files.rm_file(store.place(name))

        self._asked(work)
        self._cache.drop(name)

    def names(self, folder: str) -> Sequence[str]:
        """See `Objects.names`."""

        def work(store: _Store) -> list[str]:
            try:
                found = store.files.ls(store.place(folder), detail=False)
            except FileNotFoundError:
                return []
            return [f"{folder}/{each.rpartition('/')[2]}" for each in found]

        return self._asked(work)

    def sweep(self) -> None:
        """See `Objects.sweep`; of S3 also uploads in parts. The other stores forget these by themselves, after a week."""
        sweep_parts(self._scratch)
        self._cache.sweep()
        if self._address.protocol == "s3":
            self._asked(_abort_uploads)

    def check(self) -> str:
        """See `Objects.check`."""
        name = f"probes/{uuid.uuid4().hex}"
        self.write(name, lambda file: file.write(b"regsearch"))
        with self.reading(name) as path:
            whole = path.read_bytes() == b"regsearch"
        self.delete(name)
        if not whole:
            raise OtherContent(f"{self._address.shown} returns something else than was written")
        return f"{self._address.shown} can be written and read"

    def _fetch(self, name: str, path: Path, digest: str) -> None:
        try:
            self._asked(lambda store: store.files.get_file(store.place(name), str(path)))
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._cache.trim(0)
            raise StorageFull(f"there is no room for a copy of {name} on this machine") from None
        if digest and not has_digest(path, digest):
            raise OtherContent(f"{name} in {self._address.shown} is torn, or has been changed")

    def _asked(self, work: Callable[[_Store], T], *, writing: bool = False) -> T:
        """What the store answers; it is asked again while it can't be reached."""
        give_up, pause = time.monotonic() + self._patience, 0.1
        while True:
            try:
                return work(_connect(self._address.plain))
            except (RegsearchError, MemoryError):
                raise
            except ImportError:
                package = PACKAGES[self._address.protocol]
                raise ObjectsUnavailable(
                    f"REGSEARCH_OBJECTS needs a package that is not installed: pip install {package}"
                ) from None
            except Exception as error:  # the libraries' errors have no common base class
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                if isinstance(error, FileNotFoundError) and not writing:
                    raise FileNotFoundError(errno.ENOENT, "it is not in the object store") from None
                lasting = isinstance(error, FileNotFoundError | PermissionError) or type(error).__name__ in _NO_CREDENTIALS
                if lasting or time.monotonic() + pause > give_up:
                    raise ObjectsUnavailable(
                        f"the object store {self._address.shown} can't be used: {kind_of(error)}"
                    ) from None
            self._sleep(pause)
            pause = min(2.0, 2 * pause)


def _seal(path: Path) -> None:
    """Append the SHA-256 of what is in a file."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, os.SEEK_END)
        file.write(digest)


def _unsealed(path: Path) -> bool:
    """Remove what `_seal` has appended; returns whether it is the hash of the rest."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END) - hashlib.sha256().digest_size
        if size < 0:
            return False
        file.seek(size)
        digest = file.read()
        file.truncate(size)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").digest() == digest


def _size(store: _Store, name: str) -> int | None:
    try:
        return int(store.files.info(store.place(name))["size"])
    except FileNotFoundError:
        return None


def _put(store: _Store, name: str, path: Path, options: Mapping[str, int]) -> None:
    store.files.put_file(str(path), store.place(name), **options)


def _abort_uploads(store: _Store) -> None:
    bucket, _, prefix = store.place("").partition("/")
    found = store.files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
    for upload in found.get("Uploads", []):
        if (datetime.now(UTC) - upload["Initiated"]).total_seconds() > ABANDONED_SECONDS:
            store.files.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


@lru_cache(maxsize=4)
def _connect(address: str) -> _Store:
    """A connection for all threads; listings are not remembered, for other processes change them."""
    from fsspec.core import url_to_fs

    files, root = url_to_fs(address, use_listings_cache=False, skip_instance_cache=True)
    return _Store(files, root.rstrip("/"))
