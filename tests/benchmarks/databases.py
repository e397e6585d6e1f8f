"""The databases that benchmarks of the store measure on: SQLite, and a PostgreSQL server of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def databases(without: Sequence[str]) -> Iterator[dict[str, Callable[[str], str]]]:
    """For each kind of database, what makes an empty one of a name and returns its SQLAlchemy URL; gone with the block."""
    with tempfile.TemporaryDirectory() as scratch:
        made: dict[str, Callable[[str], str]] = {"sqlite": lambda name: f"sqlite:///{scratch}/{name}.db"}
        if "postgresql" in without:
            yield made
            return
        from tests.postgres import start_postgres  # noqa: PLC0415  # optional, and looked for before

        server = start_postgres(Path(scratch) / "pg")
        address = server.get_uri().replace("postgresql://", "postgresql+psycopg://")

        def create(name: str) -> str:
            server.psql(f"CREATE DATABASE bench_{name}")
            return str(address.replace("/postgres?", f"/bench_{name}?"))

        try:
            yield {**made, "postgresql": create}
        finally:
            server.cleanup()
