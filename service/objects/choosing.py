"""The store of objects that the settings name."""

from __future__ import annotations

from pathlib import Path

from service.addresses import parse_address
from service.objects.base import Objects
from service.objects.local import LocalObjects
from service.objects.remote import RemoteObjects
from service.settings import Settings

PATIENCE_SECONDS = 5.0
"""How long a store that can't be reached is asked again; workers, which nobody waits for, have more."""


def open_objects(settings: Settings, *, patience_seconds: float = PATIENCE_SECONDS) -> Objects:
    """The store of `REGSEARCH_OBJECTS`, or the home. Opens no connection yet."""
    if settings.objects is None:
        return LocalObjects(settings.home)
    address = parse_address(settings.objects, "REGSEARCH_OBJECTS")
    if address.protocol == "file":
        return LocalObjects(Path(address.path))
    cache_bytes = int(settings.objects_cache_mb * 2**20)
    return RemoteObjects(address, settings.cache / "objects", cache_bytes, patience_seconds=patience_seconds)
