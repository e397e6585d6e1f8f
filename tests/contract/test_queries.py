"""Queries of a real SQLite file and a real PostgreSQL as Parquet files: types, limits, and that nothing can be changed."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from service.errors import InvalidInput
from service.store.databases import check_database
from service.store.queries import read_query
from tests.contract.conftest import Server

PASSWORD = "s3cr3t-password"
READER = "reader"
ROWS = 40_000
"""More than a batch has."""
LIMIT = 4 << 20


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An SQLite file with a table whose first rows have narrower types than its last ones."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE sales (id INTEGER PRIMARY KEY, price, city TEXT, code, note, y INTEGER)")
        rows = (
            (n, n if n < 20_000 else n + 0.5, "abc"[n % 3], n if n % 30_000 else "none", None, n % 2) for n in range(ROWS)
        )
        connection.executemany("INSERT INTO sales VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("CREATE TABLE pictures (id INTEGER, picture BLOB)")
        connection.execute("INSERT INTO pictures VALUES (1, x'00')")
        connection.execute("CREATE TABLE empty (a, b)")
    return path


@pytest.fixture(scope="session")
def people(postgres: Server) -> str:
    """URL of a PostgreSQL database, of a role that may write to it."""
    url = make_url(postgres.database("people"))
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE people AS SELECT n AS id, n::smallint AS small, n / 8.0::float8 AS height, "
                "(n * 1.25)::numeric(12, 2) AS income, n % 2 = 0 AS member, 'word ' || n % 3 AS city, "
                "date '2024-01-01' + n AS born, timestamptz '2024-01-01 12:00+02' + n * interval '1 hour' AS seen, "
                "n * interval '1 minute' AS duration, CASE WHEN n > 15 THEN n END AS late, "
                "'{\"a\": 1}'::jsonb AS record, decode('00', 'hex') AS bytes, "
                "md5(n::text)::uuid AS key FROM generate_series(0, 19) AS n"
            )
        )
        connection.execute(text(f"CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}'"))
        connection.execute(text(f"GRANT ALL ON people TO {READER}"))
        connection.execute(text(f"GRANT ALL ON SCHEMA public TO {READER}"))
        connection.execute(text("CREATE SEQUENCE counter"))
        connection.execute(text(f"GRANT ALL ON counter TO {READER}"))
    engine.dispose()
    return url.set(drivername="postgresql", username=READER, password=PASSWORD).render_as_string(hide_password=False)


@pytest.fixture
def urls(tmp_path: Path, shop: Path, people: str) -> dict[str, str]:
    return {
        "shop": f"sqlite:///{shop}",
        "people": people,
        "away": f"postgresql://someone:{PASSWORD}@127.0.0.1:1/nowhere",
        "gone": f"sqlite:///{tmp_path}/gone.db",
    }


Ask = Callable[..., Path]


@pytest.fixture
def asked(urls: dict[str, str], tmp_path: Path) -> Ask:
    """The file with the rows of a query."""

    def asked(database: str, query: str, seconds: float = 60.0) -> Path:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        target = tmp_path / "rows.parquet"
        read_query(check_database(database, urls[database]), query, target, scratch, LIMIT, seconds)
        return target

    return asked


@pytest.fixture
def refused(asked: Ask) -> Callable[..., str]:
    """The message of a refusal."""

    def refused(database: str, query: str, field: str = "query", seconds: float = 60.0) -> str:
        with pytest.raises(InvalidInput) as caught:
            asked(database, query, seconds)
        (issue,) = caught.value.issues
        assert issue.field == field
        told = f"{issue.message} {issue.value} {issue.allowed}"
        assert PASSWORD not in told
        return told

    return refused


def test_types_of_sqlite_are_those_that_hold_all_rows(asked: Ask) -> None:
    path = asked("shop", "SELECT price, city, code, note, y FROM sales ORDER BY id -- all; of them\n;")
    kinds = {field.name: str(field.type) for field in pq.read_schema(path)}
    assert kinds == {"price": "double", "city": "string", "code": "string", "note": "string", "y": "int64"}
    table = pd.read_parquet(path)
    assert table["price"].tolist() == [n if n < 20_000 else n + 0.5 for n in range(ROWS)]
    assert table["code"].tolist()[:3] == ["none", "1", "2"]
    assert table["note"].isna().all()


def test_types_of_postgresql_are_kept(asked: Ask) -> None:
    columns = "id, small, height, income, member, city, born, seen, duration, late, key"
    path = asked("people", f"SELECT {columns} FROM people WHERE city LIKE 'word%' AND id::text <> ':x' ORDER BY id")
    table = pq.read_table(path)
    assert table.num_rows == 20
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "int64",
        "small": "int64",
        "height": "double",
        "income": "decimal128(4, 2)",
        "member": "bool",
        "city": "string",
        "born": "date32[day]",
        "seen": "timestamp[us, tz=UTC]",
        "duration": "double",
        "late": "int64",
        "key": "string",
    }
    rows = table.to_pylist()
    assert (rows[3]["duration"], rows[3]["seen"], rows[3]["late"]) == (180.0, datetime(2024, 1, 1, 13, tzinfo=UTC), None)
    assert float(rows[3]["income"]) == 3.75


WRITES = [
    ("shop", "DELETE FROM sales", "must be one SELECT"),
    ("shop", "PRAGMA journal_mode", "must be one SELECT"),
    ("shop", "ATTACH '/etc/passwd' AS x", "must be one SELECT"),
    ("shop", "SELECT 1, 2; DELETE FROM sales", "one statement at a time"),
    ("shop", "WITH x AS (SELECT 1) DELETE FROM sales", "may only read"),
    ("shop", "SELECT * FROM pragma_database_list", "may only read"),
    ("shop", "SELECT load_extension('x'), 1", "may only read"),
    ("people", "DROP TABLE people", "must be one SELECT"),
    ("people", "SELECT 1, 2; DROP TABLE people", "multiple commands"),
    ("people", "SELECT 1, 2; COMMIT; DROP TABLE people", "multiple commands"),
    ("people", "WITH x AS (DELETE FROM people RETURNING *) SELECT * FROM x", "data-modifying"),
    ("people", "SELECT id, height INTO copied FROM people", "INTO"),
    ("people", "SELECT nextval('counter'), 1", "may only read"),
    ("people", "SELECT id, set_config('transaction_read_only', 'off', true) FROM people", "must be set before any query"),
    ("people", "SELECT id, height FROM people FOR UPDATE", "may only read"),
    ("people", "COPY people TO PROGRAM 'touch /tmp/x'", "must be one SELECT"),
    ("people", "SELECT pg_read_file('/etc/passwd'), 1", "permission denied"),
]


@pytest.mark.parametrize(("database", "query", "told"), WRITES)
def test_a_query_only_reads(
    refused: Callable[..., str], shop: Path, people: str, database: str, query: str, told: str
) -> None:
    assert told in refused(database, query)
    with closing(sqlite3.connect(shop)) as connection:
        assert connection.execute("SELECT count(*) FROM sales").fetchone() == (ROWS,)
    engine = create_engine(people.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as found:
        assert found.execute(text("SELECT count(*) FROM people")).scalar() == 20
        assert found.execute(text("SELECT is_called FROM counter")).scalar() is False
        tables = found.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar()
        assert tables == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("database", "query", "field", "told"),
    [
        ("away", "SELECT 1, 2", "database", "can't be reached"),
        ("gone", "SELECT 1, 2", "database", "can't be reached"),
        ("shop", "SELECT nowhere, y FROM sales", "query", "no such column: nowhere"),
        ("shop", "SELECT * FROM sales WHERE", "query", "incomplete input"),
        ("shop", "", "query", "must be one SELECT"),
        ("shop", "/**/ " * 20_000 + "DROP TABLE sales", "query", "must be one SELECT"),
        ("shop", "SELECT * FROM empty", "query", "has no rows"),
        ("shop", "SELECT y, y FROM sales", "query", "several columns with the same name"),
        ("shop", "SELECT * FROM pictures", "query", "'picture' with values of the type bytes"),
        ("people", "SELECT nothing, id FROM people", "query", 'column "nothing" does not exist'),
        ("people", "SELECT id, record FROM people", "query", "'record' with values of the type dict"),
        ("people", "SELECT id, bytes FROM people", "query", "'bytes' with values of the type bytes"),
        ("people", "SELECT id, 1 / (id - id) FROM people", "query", "division by zero"),
    ],
)
def test_what_is_no_data_set_is_refused(
    refused: Callable[..., str], database: str, query: str, field: str, told: str
) -> None:
    assert told in refused(database, query, field)


def test_without_the_driver_it_is_told_what_to_install(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as where it is not installed
    assert "pip install 'regsearch[postgres]'" in refused("people", "SELECT 1, 2", "database")


def test_a_query_that_takes_too_long_is_stopped_by_its_database(refused: Callable[..., str]) -> None:
    assert "was stopped after 0.5 s" in refused("people", "SELECT pg_sleep(100), 1", seconds=0.5)


def test_one_of_sqlite_is_so_too(refused: Callable[..., str]) -> None:
    endless = "WITH RECURSIVE n(a, y) AS (SELECT 1, 2 UNION ALL SELECT a + 1, y FROM n) SELECT sum(a), 1 FROM n"
    assert "was stopped after 0.5 s" in refused("shop", endless, seconds=0.5)


def test_rows_without_end_are_left(refused: Callable[..., str]) -> None:
    words = "SELECT a, md5((a * b)::text) AS word FROM generate_series(1, 20000) AS a, generate_series(1, 20000) AS b"
    assert f"has more than {LIMIT} bytes" in refused("people", words)
