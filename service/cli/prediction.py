"""`regsearch predict`: downloads a study's model, and predicts with the loader installed here in a process with torch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from service.client.connection import HttpClient
from service.errors import RegsearchError

_NEEDED = ("torch", "safetensors", "numpy")


class PredictionFailed(RegsearchError):
    """The loader failed; the message is the last line that it printed."""


def predict(client: HttpClient, study_id: int, rows: Path, out: Path | None, module: str | None = None) -> None:
    """Write predictions for the rows of a CSV or NPZ file to ``out``, or to standard output.

    ``module`` is what is imported for a network of the user's own, which no archive says by itself.

    Raises:
        PredictionFailed: A column is missing, the file can't be read, or torch is not installed here.
    """
    with tempfile.TemporaryDirectory(prefix="regsearch-model-") as directory:
        archive = Path(directory) / "model.zip"
        archive.write_bytes(client.download(f"/v1/studies/{study_id}/model"))
        target = [] if out is None else ["--out", str(out.absolute())]
        target += [] if module is None else ["--module", module]
        # -P: modules in the working directory must not shadow those that torch imports.
        command = [sys.executable, "-P", "-m", "workers.predicting", str(archive), str(rows.absolute()), *target]
        done = subprocess.run(command, stdout=None, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise PredictionFailed(_reason(done.stderr))
    sys.stderr.write(done.stderr)  # warnings


def _reason(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    last = lines[-1] if lines else "the loader printed nothing"
    for name in _NEEDED:
        if f"No module named {name!r}" in last:
            return f"prediction needs {', '.join(_NEEDED)}: pip install 'regsearch[worker]'"
    return last
