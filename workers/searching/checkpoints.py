"""Checkpoints of interrupted trials: a paused study, or one whose turn was over, continues where it stopped.

A checkpoint is optional: without it (after a killed worker, or without a store of objects on another host) a trial starts
again. It contains tensors and plain values only, and loading it never executes pickled code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch

from service.objects import Objects, ObjectsUnavailable, states_of, sweep_states

FORMAT = 2
"""The format of a checkpoint; one of another format is not used."""

log = logging.getLogger(__name__)


class Checkpoints:
    """One object per interrupted trial."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def save(self, trial_id: int, state: dict[str, Any]) -> bool:
        """Write a trial's state, atomically. Where it can't be written (the disk is full), the trial will start again.

        Returns:
            Whether others may be written: the store of objects can be reached.
        """
        write = partial(torch.save, {"format": FORMAT, "state": state})
        try:
            self._objects.write(states_of(trial_id), write)
        except (OSError, RuntimeError, ObjectsUnavailable) as error:
            log.warning("checkpoint of trial %d can't be written, the trial will start again: %s", trial_id, error)
            return not isinstance(error, ObjectsUnavailable)
        return True

    def load(self, trial_id: int) -> dict[str, Any] | None:
        """A trial's state; None if there is none that can be read."""
        try:
            with self._objects.reading(states_of(trial_id)) as path:
                saved = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
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
        try:
            self._objects.delete(states_of(trial_id))
        except ObjectsUnavailable as error:
            log.warning("checkpoint of trial %d can't be deleted, a later sweep will do it: %s", trial_id, error)

    def sweep(self, still_open: Callable[[Sequence[int]], Collection[int]]) -> None:
        """See `sweep_states`; also what was left in part."""
        try:
            self._objects.sweep()
            sweep_states(self._objects, still_open)
        except ObjectsUnavailable as error:
            log.warning("checkpoints of trials that have ended can't be deleted: %s", error)
