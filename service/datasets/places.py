"""Places that data are fetched from: web servers, directories of this machine, object stores. Not thread-safe.

Web servers are asked by httpx, redirect by redirect, each of which must be allowed; directories are read as `data.path` is,
links followed before the check. Everything else is fsspec's, with the credentials that its libraries find in the process.
No message has anything that a library or server wrote, which may be a credential.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn
from urllib.parse import urldefrag, urljoin

import httpx

from service.addresses import Address, allowed_address
from service.datasets.uploads import held, is_folder
from service.errors import InvalidInput, TooLarge
from service.objects.stores import PACKAGES, kind_of

FIELD = "address"
_CHUNK = 1 << 20
_BLOCK = 8 << 20
_REDIRECTS, _RESUMES, _PARALLEL = 5, 5, 16
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


def refuse(message: str, *, value: object = None, allowed: object = None) -> NoReturn:
    """Refuse an address.

    Raises:
        InvalidInput: Always, on the field `FIELD`.
    """
    raise InvalidInput.one(FIELD, message, value=value, allowed=allowed)


def too_large(most: int) -> TooLarge:
    """The refusal of what is larger than ``most`` bytes."""
    return TooLarge.one(FIELD, f"is larger than {most} bytes", allowed=most)


@dataclass(frozen=True)
class Entry:
    """A file in a folder: its path there, and its size as the folder tells it."""

    name: str
    size: int


class Source(ABC):
    """What is at an address."""

    @abstractmethod
    def is_folder(self) -> bool:
        """Whether it is a folder of files; if not, it is one file."""

    @abstractmethod
    def files(self) -> Iterator[Entry]:
        """The files of the folder and of those in it, in no certain order."""

    @abstractmethod
    def chunks(self, name: str = "") -> Iterator[bytes]:
        """The content, or that of a file of the folder."""

    def contents(self, names: Sequence[str]) -> Iterator[bytes]:
        """The contents of small files of the folder, in their order."""
        return (b"".join(self.chunks(name)) for name in names)


def source_at(address: Address, prefixes: Sequence[str], most: int) -> Source:
    """What is at an allowed address; a web server's file that is announced with more than ``most`` bytes is not read.

    Raises:
        InvalidInput: Of every method, too: it can't be reached, is not there, or may not be read.
    """
    if address.is_web:
        return WebSource(address, prefixes, most)
    if address.protocol == "file":
        return LocalSource(address, prefixes)
    return StoreSource(address)


class WebSource(Source):
    """A file of a web server. What breaks off is resumed if the server can tell that it is still the same file."""

    def __init__(self, address: Address, prefixes: Sequence[str], most: int) -> None:
        self._address = address
        self._prefixes = prefixes
        self._most = most

    def is_folder(self) -> bool:
        """Web servers have no folders."""
        return False

    def files(self) -> Iterator[Entry]:
        """None."""
        return iter(())

    def chunks(self, name: str = "") -> Iterator[bytes]:
        """See above."""
        done, resumes, mark = 0, 0, ""
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
            while True:
                try:
                    with self._answer(client, done, mark) as response:
                        mark = mark or _strong_mark(response.headers)
                        for chunk in response.iter_bytes():
                            done += len(chunk)
                            yield chunk
                    return
                except httpx.TransportError as error:
                    if not (done and mark and resumes < _RESUMES):
                        refuse(_outage(error, done), value=self._address.shown)
                    resumes += 1

    @contextmanager
    def _answer(self, client: httpx.Client, done: int, mark: str) -> Iterator[httpx.Response]:
        """The answer with the content, or with the rest of it."""
        headers = {"accept-encoding": "identity"}
        if done:
            headers |= {"range": f"bytes={done}-", "if-range": mark}
        address = self._address
        for _ in range(1 + _REDIRECTS):
            with client.stream("GET", address.whole, headers=headers) as response:
                if response.has_redirect_location:
                    address = self._target(address, response.headers["location"])
                    continue
                self._check(response, done)
                yield response
                return
        refuse(f"leads on more than {_REDIRECTS} times", value=self._address.shown)

    def _target(self, address: Address, location: str) -> Address:
        target = urldefrag(urljoin(address.whole, location)).url
        try:
            return allowed_address(target, self._prefixes)
        except InvalidInput as error:
            issue = error.issues[0]
            refuse(f"leads to another address, which {issue.message}", value=issue.value, allowed=issue.allowed)

    def _check(self, response: httpx.Response, done: int) -> None:
        status = response.status_code
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            refuse("has nothing: the server answers 404", value=self._address.shown)
        if done:
            given = response.headers.get("content-range", "")
            if status != HTTPStatus.PARTIAL_CONTENT or not given.startswith(f"bytes {done}-"):
                refuse("broke off, and has changed meanwhile", value=self._address.shown)
        elif status != HTTPStatus.OK:
            refuse(f"can't be read: the server answers {status}", value=self._address.shown)
        if int(response.headers.get("content-length", 0)) > self._most:  # a number, or the client has refused it
            raise too_large(self._most)


class LocalSource(Source):
    """A file or directory of this machine, under one of the allowed directories after following links."""

    def __init__(self, address: Address, prefixes: Sequence[str]) -> None:
        self._address = address
        self._path = Path(address.path)
        self._roots = [Path(each.removeprefix("file://")) for each in prefixes if address.plain.startswith(each)]

    def is_folder(self) -> bool:
        """Whether it is an allowed directory."""
        return is_folder(self._path, self._roots)

    def files(self) -> Iterator[Entry]:
        """See above; links to directories are not followed."""
        for folder, _, names in os.walk(self._path):
            for name in names:
                path = Path(folder, name)
                if path.is_file():
                    yield Entry(path.relative_to(self._path).as_posix(), path.stat().st_size)

    def chunks(self, name: str = "") -> Iterator[bytes]:
        """See above."""
        try:
            with held(str(self._path / name), self._roots) as found, found.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except InvalidInput:
            refuse("is no file that may be read", value=self._address.shown)


class StoreSource(Source):
    """An object, or the objects below a prefix, of a store that fsspec knows."""

    def __init__(self, address: Address) -> None:
        self._address = address
        with self._told():
            from fsspec.core import url_to_fs

            self._store, self._path = url_to_fs(address.plain)

    def is_folder(self) -> bool:
        """Whether there are objects below it."""
        with self._told():
            return self._address.path.endswith("/") or bool(self._store.info(self._path)["type"] == "directory")

    def files(self) -> Iterator[Entry]:
        """See above."""
        root = self._path.rstrip("/")
        with self._told():
            for folder, _, found in self._store.walk(root, detail=True):
                for name, about in found.items():
                    if name:  # of a bucket that shows its folders as objects
                        yield Entry(f"{folder}/{name}".removeprefix(root).strip("/"), int(about["size"] or 0))

    def chunks(self, name: str = "") -> Iterator[bytes]:
        """See above."""
        with self._told(), self._store.open(self._place(name), "rb", block_size=_BLOCK) as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def contents(self, names: Sequence[str]) -> Iterator[bytes]:
        """See above; several at a time."""
        with self._told(), ThreadPoolExecutor(_PARALLEL) as pool:
            yield from pool.map(self._store.cat_file, map(self._place, names))

    def _place(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}" if name else str(self._path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of a library as refusals of the address."""
        try:
            yield
        except (InvalidInput, MemoryError):
            raise
        except ImportError:
            package = PACKAGES[self._address.protocol]
            refuse(f"needs a package that is not installed: pip install {package} where the service runs")
        except FileNotFoundError:
            refuse("has nothing", value=self._address.shown)
        except Exception as error:  # the libraries' errors have no common base class
            refuse(f"can't be read with the service's credentials: {kind_of(error)}", value=self._address.shown)


def _strong_mark(headers: Mapping[str, str]) -> str:
    """The mark by which a server recognizes its file, if it sends parts of it, too, and as it is."""
    mark = headers.get("etag", "")
    resumable = headers.get("accept-ranges") == "bytes" and "content-encoding" not in headers
    return mark if resumable and mark.startswith('"') else ""


def _outage(error: httpx.TransportError, done: int) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "can't be read: the server does not answer"
    if done:
        return "broke off: the server sent less than it announced, or closed the connection"
    return "can't be read: the server can't be reached, or has no valid certificate"
