"""`regsearch doctor`: whether this machine can run the service, and what is missing if not.

Every check runs, whatever the others find; a check that raises an expected error counts as trouble.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from service.cli.local import address
from service.cli.supervisor import CannotStart, check_port, worker_devices
from service.client.connection import HttpClient, Refused, Unreachable
from service.errors import DatabaseUnavailable, InvalidInput, RegsearchError
from service.objects import open_objects
from service.settings import Settings

_MIN_FREE_GB = 1.0
_PATIENCE_SECONDS = 10.0


def examine(
    settings: Settings,
    console: Console,
    *,
    devices: Callable[[], list[str]] = worker_devices,
    answer_seconds: float = 5.0,
) -> bool:
    """Print one line per check; returns whether all of them passed."""
    checks: list[tuple[str, Callable[[Settings], str]]] = [
        ("database", _database),
        *(("data", partial(_named, name=name)) for name in settings.databases),
        *([("objects", _objects)] if settings.objects else []),
        ("devices", lambda _: ", ".join(devices())),
        ("disk", _disk),
        ("port", lambda settings: _port(settings, answer_seconds)),
    ]
    all_passed = True
    for name, check in checks:
        try:
            finding, passed = check(settings), True
        except (RegsearchError, OSError) as error:
            finding, passed = str(error), False
        all_passed &= passed
        mark, style = ("ok", "green") if passed else ("trouble", "red")
        console.print(Text.assemble((f"{mark:8}", style), f" {name:9} {finding}"))
    return all_passed


def _database(settings: Settings) -> str:
    from service.store import open_store

    url = settings.database_url
    if url.startswith("sqlite") and settings.db_url is None and not (settings.home / "regsearch.db").exists():
        return f"{url} will be created on the first start"
    store = open_store(url, settings.connections)
    store.ping()
    _, studies = store.studies.list(limit=1)
    store.close()
    return f"reachable, schema up to date, {studies} studies"


def _named(settings: Settings, *, name: str) -> str:
    from service.store.databases import check_database, rows_of

    url = check_database(name, settings.databases[name].get_secret_value())
    try:
        with rows_of(url, "SELECT 1", _PATIENCE_SECONDS):
            return f"{name} is reachable"
    except InvalidInput as error:
        raise DatabaseUnavailable(f"{name} {error.issues[0].message}") from None


def _objects(settings: Settings) -> str:
    return open_objects(settings).check()


def _disk(settings: Settings) -> str:
    path = settings.home.absolute()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(Path(path)).free / 2**30
    if free < _MIN_FREE_GB:
        raise DatabaseUnavailable(f"only {free:.1f} GB free at {path}")
    return f"{free:.0f} GB free at {path}"


def _port(settings: Settings, answer_seconds: float) -> str:
    where = address(settings)
    try:
        check_port(settings.host, settings.port)
    except CannotStart as error:
        client = HttpClient(where, timeout=answer_seconds)
        try:
            client.get("/readyz")
        except Refused as refused:
            raise CannotStart(f"{where} is in use by a service that is not ready: {refused}") from None
        except Unreachable:
            raise error from None
        finally:
            client.close()
        return f"{where} is in use by a service that is ready"
    return f"{where} is free"
