"""What nobody needs any more among the objects: parts of files, checkpoints of ended trials, weights of deleted studies."""

from __future__ import annotations

import logging

from service.datasets.weights import sweep_weights
from service.objects import Objects, ObjectsUnavailable, sweep_states
from service.store import Store

log = logging.getLogger(__name__)


def sweep(objects: Objects, store: Store) -> None:
    """Delete it. A store of objects that can't be reached is a warning, for the next sweep finds all of it again."""
    try:
        objects.sweep()
        sweep_states(objects, store.history.open_among)
        sweep_weights(objects, store.studies.beginning_with)
    except (ObjectsUnavailable, OSError) as error:
        log.warning("leftovers in the object store stay: %s", error)
