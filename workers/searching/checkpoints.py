"""Checkpoints of interrupted trials on disk: a paused study, or one whose turn was over, continues where it stopped.

A checkpoint is optional: without it (on another host, after a killed worker) a trial starts again. It contains tensors and
plain values only, and loading it never executes pickled code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from service.atomic import write_whole

FORMAT = 2
"""The format of a checkpoint; one of another format is not used."""

log = logging.getLogger(__name__)


class Checkpoints:
    """One file per interrupted trial."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, trial_id: int, state: dict[str, Any]) -> None:
        """Write a trial's state, atomically. Where it can't be written (the disk is full), the trial will start again."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(trial_id), partial(torch.save, {"format": FORMAT, "state": state}))
        except (OSError, RuntimeError) as error:
            log.warning("checkpoint of trial %d can't be written, the trial will start again: %s", trial_id, error)

    def load(self, trial_id: int) -> dict[str, Any] | None:
        """A trial's state; None if there is none that can be read."""
        path = self._path(trial_id)
        if not path.exists():
            return None
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a torn file may make the unpickler raise anything
            log.warning("checkpoint of trial %d can't be read, the trial starts again: %s", trial_id, error)
            return None
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            log.warning("checkpoint of trial %d has another format, the trial starts again", trial_id)
            return None
        state: dict[str, Any] = saved["state"]
        return state

    def forget(self, trial_id: int) -> None:
        """Delete a trial's state, if there is one."""
        self._path(trial_id).unlink(missing_ok=True)

    def sweep(self, still_open: Callable[[Sequence[int]], Collection[int]]) -> None:
        """Delete the states of all trials but those that ``still_open`` selects from their ids.

        A trial that ends here deletes its own state; this is for trials that ended elsewhere, were cancelled or deleted,
        and for partial files of killed workers. So at most one state per open trial is on disk.
        """
        files = list(self._directory.glob("trial-*.*"))
        of = {path: int(number) for path in files if (number := path.name.split(".")[0].removeprefix("trial-")).isdecimal()}
        kept = set(still_open(sorted(set(of.values())))) if of else set()
        for path, trial_id in of.items():
            if trial_id not in kept:
                path.unlink(missing_ok=True)

    def _path(self, trial_id: int) -> Path:
        return self._directory / f"trial-{trial_id}.pt"
