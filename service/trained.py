"""Trained models among the objects: archives (ZIP) and ONNX models, kept, read, and moved from where they used to be.

    models = TrainedModels(store, open_objects(settings))
    with models.archive(study_id) as path: ...

Each is written before the transaction that names it, under a name that begins with its SHA-256 and that no other one has: a
worker that has lost its lease writes beside the one that holds it, not over it, and what no transaction names is deleted as
a stray (`service.leftovers`). Thread-safe, and safe with any number of processes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from service.atomic import sync_folder
from service.datasets.uploads import receiving
from service.errors import Conflict
from service.objects import Objects, OtherContent
from service.store import Store
from service.store.records import StoredObject

FOLDER = "models"


class TrainedModels:
    """The trained models that one database names, in one store of objects."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._rows = store.archives
        self._objects = objects

    def keep(self, content: BinaryIO, ending: str) -> StoredObject:
        """Write an object, which the caller's next transaction is to name, within a quarter of an hour.

        Raises:
            ObjectsUnavailable: The store of objects can't be reached.
            StorageFull: This machine has no room for it; nothing was written.
        """
        with self._objects.arriving(FOLDER) as directory, receiving(directory) as temporary:
            with temporary.open("r+b") as file:
                shutil.copyfileobj(content, file)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
                file.seek(0)
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            path = directory / f"{sha256}-{uuid.uuid4().hex[:8]}.{ending}"
            name = f"{FOLDER}/{path.name}"
            self._rows.announce(name)
            temporary.replace(path)
            sync_folder(directory)
            self._objects.put(name, path)
        return StoredObject(name, sha256, size)

    def discard(self, written: Iterable[StoredObject | None]) -> None:
        """Let what was written and nothing has named be deleted at once; what was named stays."""
        self._rows.condemn([each.name for each in written if each is not None and each.name is not None])

    @contextmanager
    def archive(self, study_id: int) -> Iterator[Path]:
        """The file of a study's archive, whose content is what was stored; it must not be changed.

        Raises:
            NotFound: There is no such study, or it has no archive.
            Conflict: The object is gone, or has another content.
            ObjectsUnavailable, StorageFull: See `Objects.reading`.
        """
        with self._reading(study_id, "archive", lambda: self._rows.get(study_id).content) as path:
            yield path

    @contextmanager
    def onnx(self, study_id: int) -> Iterator[Path]:
        """The file of its ONNX model.

        Raises:
            NotYet: No worker has made it so far.
            NotFound, Conflict, ObjectsUnavailable, StorageFull: As `archive`; or it can't be made.
        """
        with self._reading(study_id, "ONNX model", lambda: self._rows.onnx(study_id)) as path:
            yield path

    def move(self, study_id: int | None = None) -> bool:
        """Move what an earlier version has left in the database, of one study or of any; returns whether there was any.

        It is in the database until the transaction that names the objects, and others may move it at the same time.
        """
        left = self._rows.left(study_id)
        if left is None:
            return False
        owner, archive, onnx = left
        kept = self.keep(BytesIO(archive), "zip")
        kept_onnx = None if onnx is None else self.keep(BytesIO(onnx), "onnx")
        if not self._rows.moved(owner, kept, kept_onnx):
            self.discard((kept, kept_onnx))
        return True

    @contextmanager
    def _reading(self, study_id: int, what: str, find: Callable[[], StoredObject]) -> Iterator[Path]:
        found = find()
        if found.name is None:
            self.move(study_id)
            found = find()
        assert found.name is not None, "what was left in the database has been moved"
        whole = f"the {what} of study {study_id}"
        with ExitStack() as stack:
            try:
                path = stack.enter_context(self._objects.reading(found.name, found.sha256))
            except FileNotFoundError:
                where = "the object store" if self._objects.remote else "this home: all processes need the same one"
                raise Conflict(f"{whole} can't be read: {found.name} is not in {where}") from None
            except OSError as error:
                raise Conflict(f"{whole} can't be read: {error.strerror}") from None
            except OtherContent:
                raise Conflict(f"{whole} is not what was stored: {found.name} is torn, or has been changed") from None
            yield path
