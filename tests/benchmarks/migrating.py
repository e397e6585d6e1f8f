"""Seconds that `regsearch migrate-to` takes for 100 000 trials, and whether stock Optuna then finds the same.

    python -m tests.benchmarks.migrating [--trials 100000]

The rows are inserted in bulk: finished studies of 1000 trials with 6 parameters and 20 values each. Counts of all tables and
the trials of three studies are read from both databases afterwards, the latter by `optuna.load_study`.
"""

from __future__ import annotations

import tempfile
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, distribution_to_json
from sqlalchemy import Connection, insert, text, update

from service.store import open_store
from service.store import tables as t
from service.store.engine import Database, normalize
from service.store.migrating import move
from tests.benchmarks.rounds import Options, Rounds
from tests.contract.conftest import a_spec
from tests.postgres import start_postgres

PARAMS, STEPS, PER_STUDY = 6, 20, 1000

_NUMBERS = "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < :many)"
_ADD_PARAMS = f"""
INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
{_NUMBERS} SELECT trial_id, 'p' || n, ((trial_id * 7 + n) % 1009) / 1010.0, :as_json FROM trials, n WHERE study_id = :study
"""
_ADD_STEPS = f"""
INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
{_NUMBERS} SELECT trial_id, n, (trial_id * 7919 % 10007) / 3.0 + 1.0 / (n + 1), 'FINITE'
FROM trials, n WHERE study_id = :study
"""


def fill(url: str, trials: int, per_study: int = PER_STUDY) -> list[str]:
    """Make a database with finished studies of that many trials together; returns their names."""
    store = open_store(url, create=True)
    names = []
    for first in range(0, trials, per_study):
        spec = a_spec(name=f"study {first // per_study}", budget={"trials": per_study})
        study = store.studies.submit(spec)
        names.append(store.studies.get(study).name)
        store.database.write(lambda connection, study=study: _add(connection, study, per_study))  # type: ignore[misc]
    store.close()
    return names


def _add(connection: Connection, study: int, count: int) -> None:
    first = connection.execute(text("SELECT coalesce(max(trial_id), 0) + 1 FROM trials")).scalar_one()
    ids, moment = range(first, first + count), datetime(2026, 1, 2, 3, 4, 5, 678901)
    rows: dict[Any, list[dict[str, Any]]] = {
        t.o_trials: [
            {"trial_id": i, "number": i - first, "study_id": study, "state": _complete(), "datetime_start": moment}
            | {"datetime_complete": moment}
            for i in ids
        ],
        t.o_values: [{"trial_id": i, "objective": 0, "value": _value(i), "value_type": "FINITE"} for i in ids],
        t.o_trial_user: [{"trial_id": i, "key": "note", "value_json": '"ä \\u0000 ☃"'} for i in ids],
        t.trials: [
            {"trial_id": i, "study_id": study, "number": i - first, "ask_key": f"{i}", "seq": i - first, "value": _value(i)}
            | {"attempt": 0, "epochs": STEPS}
            for i in ids
        ],
    }
    for table, some in rows.items():
        connection.execute(insert(table), some)
    as_json = distribution_to_json(FloatDistribution(0.0, 1.0))
    connection.execute(text(_ADD_PARAMS), {"study": study, "many": PARAMS, "as_json": as_json})
    connection.execute(text(_ADD_STEPS), {"study": study, "many": STEPS})
    done = {"asked": count, "complete": count, "told": count, "epochs": count * STEPS, "state": "finished"}
    connection.execute(update(t.studies).where(t.studies.c.study_id == study).values(done))


def _complete() -> Any:
    return optuna.trial.TrialState.COMPLETE


def _value(trial_id: int) -> float:
    return (trial_id * 7919 % 10_007) / 3.0


def read(url: str, name: str) -> dict[str, Any]:
    """What stock Optuna finds in a study."""
    study = optuna.load_study(study_name=name, storage=url)
    found = {
        trial.number: (trial.state, trial.values, trial.params, trial.intermediate_values, trial.user_attrs)
        for trial in study.trials
    }
    starts = [trial.datetime_start for trial in study.trials]
    best = study.best_trial.number
    backend: Any = study._storage
    backend.remove_session()
    backend._backend.engine.dispose()
    return {"trials": found, "starts": starts, "best": best}


def counted(url: str) -> dict[str, int]:
    """Rows by table."""
    database = Database(normalize(url))
    tables = {table.name: table for table in (*t.o_studies.metadata.sorted_tables, *t.metadata.sorted_tables)}

    def work(connection: Connection) -> dict[str, int]:
        return {name: connection.execute(text(f'SELECT count(*) FROM "{name}"')).scalar_one() for name in tables if name}

    found = database.read(work)
    database.close()
    return found


def measure(trials: int) -> dict[str, Any]:
    """One move."""
    with tempfile.TemporaryDirectory(prefix="regsearch-moving-") as place:
        source = f"sqlite:///{place}/regsearch.db"
        names = fill(source, trials)
        server = start_postgres(Path(place) / "postgres")
        target = normalize(server.get_uri()).render_as_string(hide_password=False)
        start = time.perf_counter()
        moved = move(source, target, lambda _table, _rows: None)
        seconds = time.perf_counter() - start
        some = (names[0], names[len(names) // 2], names[-1])
        found = {
            "seconds": round(seconds, 1),
            "rows": sum(each.rows for each in moved.values()),
            "source_mib": round((Path(place) / "regsearch.db").stat().st_size / 2**20, 1),
            "counts_are_equal": counted(source) == counted(target),
            "studies_read_by_optuna": len(some),
            "these_are_equal": all(read(source, name) == read(target, name) for name in some),
        }
        server.cleanup()
    return found


def main() -> None:
    """One round."""
    options = Options("migrating", __doc__, quick={"trials": 2000}, optional=("postgresql",))
    options.add_argument("--trials", type=int, default=100_000, help="in studies of 1000")
    given = options.given()
    rounds = Rounds("migrating", given)
    rounds.conclude(rounds.once("move", partial(measure, given.trials)))


if __name__ == "__main__":
    main()
