"""What nobody needs any more among the objects: parts of files, checkpoints of ended trials, weights and models of studies
that are deleted.

A look finds what the database does not name, so what a process that ends has left is found by the next look of any other,
and several that look at once only delete what is gone already. Checkpoints can be trained again and weights be read again,
so whatever is not named goes. A model can't: only what the database itself has written down as a stray goes, and a database
that was opened with a home of another one deletes none of its models.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from service.datasets.uploads import object_name
from service.datasets.weights import sweep_weights
from service.objects import Objects, ObjectsUnavailable, sweep_states
from service.store import Store

log = logging.getLogger(__name__)

MOST = 1000
"""Objects that one look deletes at most; there is another look soon if there may be more."""
GRACE_SECONDS = 900.0
"""Weights and models arrive before they are named: only those go that nobody has named for longer."""
_PAUSE_SECONDS, _SHARE = 1.0, 0.05
"""The least pause between two looks, and the most of a process's time that they may take: a store can have many objects."""


class Leftovers:
    """The leftovers in one store of objects. Thread-safe.

    Args:
        objects: The store.
        store: What names those that are needed.
        now: A clock that is never set, in seconds.
    """

    def __init__(self, objects: Objects, store: Store, now: Callable[[], float] = time.monotonic) -> None:
        self.objects = objects
        self._store = store
        self._now = now
        self._unused_since: dict[str, dict[str, float]] = {}
        self._turns = threading.Lock()
        self._due, self._earliest = -math.inf, -math.inf

    def appear(self) -> None:
        """There may be some, so look soon."""
        self._due = min(self._due, self._now())

    def turn(self) -> None:
        """Look, if it is time to. That a store can't be reached is a warning, for the next look finds all of it again."""
        with self._turns:
            begun = self._now()
            if begun < max(self._due, self._earliest):
                return
            due, self._due = begun, math.inf
            try:
                due = self._look()
            except (ObjectsUnavailable, OSError) as error:
                due = math.inf
                log.warning("leftovers in the object store stay: %s", error)
            finally:
                now = self._now()
                self._due = min(self._due, due)
                self._earliest = now + max(_PAUSE_SECONDS, (now - begun) / _SHARE)

    def _look(self) -> float:
        """Delete what is found; returns the time of the next look."""
        self.objects.sweep()
        deleted = sweep_states(self.objects, self._store.history.open_among, MOST)
        deleted += sweep_weights(self.objects, self._unused_weights, MOST)
        deleted += self._sweep_models()
        if deleted >= MOST:
            return self._now()
        since = [each for kind in self._unused_since.values() for each in kind.values()]
        return min(since, default=math.inf) + GRACE_SECONDS

    def _sweep_models(self) -> int:
        """Delete strays; returns their number. Once one is condemned, no transaction can name it any more."""
        rows = self._store.archives
        strays = rows.strays(MOST)
        waiting = [name for name, condemned in strays.items() if not condemned]
        gone = [name for name, condemned in strays.items() if condemned]
        gone += rows.condemn(self._long_unused("models", waiting))
        for name in gone:
            self.objects.delete(name)
        rows.forget(gone)
        return len(gone)

    def _unused_weights(self, hashes: list[str]) -> list[str]:
        """Those of the hashes of files of weights that no study has begun with for long enough."""
        used = self._store.studies.beginning_with(hashes)
        return self._long_unused("weights", [each for each in hashes if each not in used])

    def _long_unused(self, kind: str, unused: list[str]) -> list[str]:
        """Those of what is unused now that this process has found unused for long enough."""
        now, before = self._now(), self._unused_since.get(kind, {})
        found = self._unused_since[kind] = {each: before.get(each, now) for each in unused}
        return [each for each, since in found.items() if now - since >= GRACE_SECONDS]


def forget_dataset(store: Store, objects: Objects, dataset_id: str, owner: str | None = None) -> None:
    """Delete a data set and its file, or only that it is an ``owner``'s while others have it.

    Raises:
        NotFound, Conflict: See `Datasets.delete`.
    """
    record = store.datasets.delete(dataset_id, owner)
    if record is not None:
        objects.delete(object_name(record.id, record.format))
