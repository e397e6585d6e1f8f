"""ONNX models of stored archives, made by workers between studies: the answer never waits for one.

So archives that earlier versions have left get theirs too. A worker without the packages of `regsearch[onnx]` makes none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO

from service.errors import Conflict, NotFound, NotReady, RegsearchError, StorageFull
from service.store import Store
from service.trained import TrainedModels
from workers.liveness import Pulse
from workers.plain.preprocessing import CannotPredict

log = logging.getLogger(__name__)

_PACKAGES = ("onnx", "onnxscript")
_SECONDS = 600.0
"""How long one may take at most; then another worker tries."""
_LONGEST_REASON = 300


class OnnxModels:
    """Makes ONNX models for one worker, which has these ``modules`` of the users' own."""

    def __init__(self, store: Store, models: TrainedModels, pulse: Pulse, modules: Sequence[str] = ()) -> None:
        self._archives = store.archives
        self._models = models
        self._modules = modules
        self._pulse = pulse
        self._able = all(find_spec(name) for name in _PACKAGES)

    def make_one(self) -> bool:
        """Make the ONNX model of the latest archive that has none; returns whether there was one.

        An archive of which none can be made is marked with the reason, and is not tried again; while the store of objects
        can't be reached, or the disk is full, it waits.
        """
        claimed = self._archives.claim_onnx(_SECONDS, self._modules) if self._able else None
        if claimed is None:
            return False
        study_id = claimed.study_id
        try:
            with self._pulse.during(lambda: {"state": "exporting", "study": study_id}):
                content, reason = self._content(study_id)
            if reason is not None:
                log.warning("study %d has no ONNX model: %s", study_id, reason)
            onnx = None if content is None else self._models.keep(BytesIO(content), "onnx")
            self._archives.keep_onnx(study_id, claimed.sha256, onnx, reason)
        except (NotReady, StorageFull, OSError) as error:
            log.warning("the ONNX model of study %d is made later: %s", study_id, error)
            return False
        return True

    def _content(self, study_id: int) -> tuple[bytes | None, str | None]:
        """The model, or why there is none."""
        try:
            with self._models.archive(study_id) as path:
                archive = path.read_bytes()
        except (NotFound, Conflict) as error:
            return None, str(error)
        return _made(archive)


def _made(archive: bytes) -> tuple[bytes | None, str | None]:
    """The model, or why there is none."""
    from workers.archive.onnx import to_onnx

    try:
        return to_onnx(archive), None
    except (RegsearchError, CannotPredict) as error:
        return None, str(error)
    except Exception as error:  # of whatever kind: the archive would be tried for ever
        log.exception("an archive can't be exported to ONNX")
        first, *_ = f"{type(error).__name__}: {error}".splitlines()
        return None, first[:_LONGEST_REASON]
