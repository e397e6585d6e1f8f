"""Trained models in the home of an embedded database, as workers would write them and people read them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from service.objects.local import LocalObjects
from service.store import Store
from service.store.archives import replace_archive
from service.trained import TrainedModels


def models_of(store: Store, home: Path | None = None) -> TrainedModels:
    """Those in a ``home``, or in that of an embedded database."""
    return TrainedModels(store, LocalObjects(home or Path(str(store.database.url.database)).parent))


def archive_of(store: Store, study_id: int) -> bytes:
    """The archive of a study."""
    with models_of(store).archive(study_id) as path:
        return path.read_bytes()


def onnx_of(store: Store, study_id: int) -> bytes:
    """Its ONNX model."""
    with models_of(store).onnx(study_id) as path:
        return path.read_bytes()


def replace(store: Store, models: TrainedModels, study_id: int, content: bytes | None) -> None:
    """Give a study another archive, or none."""
    kept = None if content is None else models.keep(BytesIO(content), "zip")
    store.database.write(lambda connection: replace_archive(connection, store.database, study_id, kept))


def keep_onnx(
    store: Store, models: TrainedModels, study_id: int, content: bytes | None, reason: str | None = None, sha256: str = ""
) -> None:
    """Give the archive of a study an ONNX model, or the reason why there is none."""
    kept = None if content is None else models.keep(BytesIO(content), "onnx")
    store.archives.keep_onnx(study_id, sha256 or store.archives.get(study_id).sha256, kept, reason)
