"""`regsearch doctor`: whether this machine can run the service, and what is missing if not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from service.cli.supervisor import worker_devices
from service.errors import DatabaseUnavailable, RegsearchError
from service.settings import Settings

_LEAST_FREE_GB = 1.0


def examine(settings: Settings, console: Console) -> bool:
    """Print one line per check; whether all is well."""
    checks: list[tuple[str, Callable[[Settings], str]]] = [
        ("database", _database),
        ("devices", _devices),
        ("disk", _disk),
    ]
    well = True
    for name, check in checks:
        try:
            said, good = check(settings), True
        except RegsearchError as error:
            said, good = str(error), False
        well &= good
        mark, style = ("ok", "green") if good else ("trouble", "red")
        console.print(f"[{style}]{mark:8}[/] {name:9} {said}", highlight=False)
    return well


def _database(settings: Settings) -> str:
    from service.store import open_store

    url = settings.database_url
    if url.startswith("sqlite") and settings.db_url is None and not (settings.home / "regsearch.db").exists():
        return f"{url} will be created by the first start"
    store = open_store(url)
    store.ping()
    _, studies = store.studies.list(limit=1)
    store.close()
    return f"reachable, schema is current, {studies} studies"


def _devices(_: Settings) -> str:
    return ", ".join(worker_devices())


def _disk(settings: Settings) -> str:
    path = settings.home.absolute()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(Path(path)).free / 2**30
    if free < _LEAST_FREE_GB:
        raise DatabaseUnavailable(f"only {free:.1f} GB free at {path}")
    return f"{free:.0f} GB free at {path}"
