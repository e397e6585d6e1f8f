"""`regsearch predict`: a study's model downloaded and run by its own loader, in a process that has torch."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from service.cli.client import Client
from service.errors import RegsearchError

_NEEDED = ("torch", "safetensors", "numpy")


class PredictionFailed(RegsearchError):
    """The loader could not predict; the message is its own."""


def predict(client: Client, study_id: int, rows: Path, out: Path | None) -> None:
    """Write predictions of the rows of a CSV file to ``out``, or to standard output.

    Raises:
        PredictionFailed: A column is missing, the file can't be read, or torch is not installed here.
    """
    archive = client.download(f"/v1/studies/{study_id}/model")
    with tempfile.TemporaryDirectory(prefix="regsearch-model-") as directory:
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            files.extractall(directory)
        target = [] if out is None else ["--out", str(out.absolute())]
        # -P: the directory that the command is run in must not put its modules before torch's.
        command = [sys.executable, "-P", str(Path(directory) / "loader.py"), str(rows.absolute()), *target]
        done = subprocess.run(command, stdout=None, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise PredictionFailed(_reason(done.stderr))


def _reason(said: str) -> str:
    lines = said.strip().splitlines()
    last = lines[-1] if lines else "the loader said nothing"
    for name in _NEEDED:
        if f"No module named {name!r}" in last:
            return f"prediction needs {', '.join(_NEEDED)}: pip install 'regsearch[worker]'"
    return last
