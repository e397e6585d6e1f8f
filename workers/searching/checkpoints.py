"""What interrupted trials have reached, on disk: a paused study, or one whose turn was over, goes on where it was.

A checkpoint is a convenience: without it (another host, a killed worker) a trial simply begins again. Tensors and plain
values only; nothing in here is ever unpickled into code.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

FORMAT = 2
"""Of what is in a checkpoint; one that another version has made is not used."""

log = logging.getLogger(__name__)


class Checkpoints:
    """One file per interrupted trial."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, trial_id: int, state: dict[str, Any]) -> None:
        """Keep a trial's state, whole or not at all."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._path(trial_id)
        temporary = path.with_suffix(".part")
        torch.save({"format": FORMAT, "state": state}, temporary)
        temporary.replace(path)

    def load(self, trial_id: int) -> dict[str, Any] | None:
        """A trial's state, if there is one that can be read."""
        path = self._path(trial_id)
        if not path.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            log.warning("checkpoint of trial %d can't be read, it begins again: %s", trial_id, error)
            return None
        if saved.get("format") != FORMAT:
            log.warning("checkpoint of trial %d is of another version, it begins again", trial_id)
            return None
        state: dict[str, Any] = saved["state"]
        return state

    def forget(self, trial_id: int) -> None:
        """Drop a trial's state, if there is one."""
        self._path(trial_id).unlink(missing_ok=True)

    def sweep(self, still_open: Callable[[Sequence[int]], Collection[int]]) -> None:
        """Drop the states of all trials but those that ``still_open`` picks from their ids.

        A trial that ends drops its own state; this is for those that ended elsewhere, were cancelled or deleted, and for
        files that a killed worker has left half-written. So what is on disk is at most one state per open trial.
        """
        files = list(self._directory.glob("trial-*.*"))
        of = {path: int(number) for path in files if (number := path.stem.removeprefix("trial-")).isdecimal()}
        kept = set(still_open(sorted(set(of.values())))) if of else set()
        for path, trial_id in of.items():
            if trial_id not in kept:
                path.unlink(missing_ok=True)

    def _path(self, trial_id: int) -> Path:
        return self._directory / f"trial-{trial_id}.pt"
