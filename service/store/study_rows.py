"""Converts rows of studies into records, including the parameters of the best trial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from service.store import tables as t
from service.store.records import BestTrial, StudyRecord, StudyState, TrialCounts
from service.store.rows import Distributions, moment


def best_params(connection: Connection, rows: Sequence[RowMapping]) -> dict[int, dict[str, Any]]:
    """Parameters of the best trial of every study in ``rows``, by study."""
    ids = [row["study_id"] for row in rows if row["best_number"] is not None]
    if not ids:
        return {}
    columns = (t.studies.c.study_id, t.o_params.c.param_name, t.o_params.c.param_value, t.o_params.c.distribution_json)
    best = (t.trials.c.study_id == t.studies.c.study_id) & (t.trials.c.number == t.studies.c.best_number)
    joined = t.studies.join(t.trials, best).join(t.o_params, t.o_params.c.trial_id == t.trials.c.trial_id)
    query = select(*columns).select_from(joined).where(t.studies.c.study_id.in_(ids)).order_by(t.o_params.c.param_id)
    distributions = Distributions()
    params: dict[int, dict[str, Any]] = {}
    for study_id, name, value, text in connection.execute(query):
        params.setdefault(study_id, {})[name] = distributions.parse(text).to_external_repr(value)
    return params


def study_record(row: RowMapping, params: Mapping[int, Mapping[str, Any]]) -> StudyRecord:
    """The record of a row with ``now``; ``params`` are those of the best trials, as `best_params` returns them."""
    best = None
    if row["best_number"] is not None:
        best = BestTrial(row["best_number"], row["best_value"], row["best_step"], params.get(row["study_id"], {}))
    created, now = moment(row["created_at"]), moment(row["now"])
    assert created is not None
    assert now is not None
    result = row.get("result")
    return StudyRecord(
        id=row["study_id"],
        name=row["name"],
        state=StudyState(row["state"]),
        reason=row["reason"],
        spec=_parsed(row["spec"]),
        owner=row["owner"],
        priority=row["priority"],
        dataset_id=row["dataset_id"],
        metric=row["metric"],
        direction=row["direction"],
        budget_trials=row["budget_trials"],
        counts=TrialCounts(row["waiting"], row["running"], row["complete"], row["pruned"], row["fail"]),
        epochs=row["epochs"],
        best=best,
        result=json.loads(result) if result else None,
        created_at=created,
        started_at=moment(row["started_at"]),
        finished_at=moment(row["finished_at"]),
        now=now,
        advice=_parsed(row["advice"]) if row.get("advice") else None,
    )


@lru_cache(maxsize=512)
def _parsed(text: str) -> Any:
    """The value of a text that many requests read, one after the other; nobody may change it."""
    return json.loads(text)
