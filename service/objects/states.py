"""The names of trials' checkpoints, and which of them go: at most one per open trial is kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from service.objects.base import Objects

FOLDER = "checkpoints"


def states_of(trial_id: int) -> str:
    """The name of a trial's checkpoint."""
    return f"{FOLDER}/trial-{trial_id}.pt"


def sweep_states(objects: Objects, still_open: Callable[[Sequence[int]], Collection[int]], most: int | None = None) -> int:
    """Delete the checkpoints, ``most`` at most, of all trials but those that ``still_open`` selects from their ids.

    A worker that ends a trial deletes its checkpoint; this is for trials that ended elsewhere, were cancelled or deleted,
    and for partial files of killed workers. Returns their number.
    """
    of = {name: trial_id for name in objects.names(FOLDER) if (trial_id := _trial(name)) is not None}
    kept = set(still_open(sorted(set(of.values())))) if of else set()
    gone = [name for name, trial_id in of.items() if trial_id not in kept][:most]
    for name in gone:
        objects.delete(name)
    return len(gone)


def _trial(name: str) -> int | None:
    """The id of the trial whose checkpoint, or part of one, a file is."""
    first = name.removeprefix(f"{FOLDER}/").split(".")[0]
    number = first.removeprefix("trial-")
    return int(number) if number != first and number.isdecimal() else None
