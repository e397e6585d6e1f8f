"""ONNX models of stored archives, made by workers between studies: the answer never waits for one.

So archives that earlier versions have left get theirs too. A worker without the packages of `regsearch[onnx]` makes none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec

from service.errors import RegsearchError
from service.store import Store
from workers.liveness import Pulse
from workers.plain.preprocessing import CannotPredict

log = logging.getLogger(__name__)

_PACKAGES = ("onnx", "onnxscript")
_SECONDS = 600.0
"""How long one may take at most; then another worker tries."""
_LONGEST_REASON = 300


class OnnxModels:
    """Makes ONNX models for one worker, which has these ``modules`` of the users' own."""

    def __init__(self, store: Store, pulse: Pulse, modules: Sequence[str] = ()) -> None:
        self._archives = store.archives
        self._modules = modules
        self._pulse = pulse
        self._able = all(find_spec(name) for name in _PACKAGES)

    def make_one(self) -> bool:
        """Make the ONNX model of the latest archive that has none; returns whether there was one.

        An archive of which none can be made is marked with the reason, and is not tried again.
        """
        claimed = self._archives.claim_onnx(_SECONDS, self._modules) if self._able else None
        if claimed is None:
            return False
        study_id, archive = claimed
        with self._pulse.during(lambda: {"state": "exporting", "study": study_id}):
            content, reason = _made(archive.content)
        if reason is not None:
            log.warning("study %d has no ONNX model: %s", study_id, reason)
        self._archives.keep_onnx(study_id, archive.sha256, content, reason)
        return True


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
