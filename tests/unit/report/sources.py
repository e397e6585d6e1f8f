"""A finished study as a report gets it, without a database."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from service.report import Source
from service.result import Calibration, CalibrationBin, Confusion, FrontTrial, Pictures, Predictions, Reading, Result
from service.store.records import StudyRecord, StudyState, TrialCounts, TrialRecord
from tests.results import result, setting, spread, winner

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = '<script>alert("1")</script> | `*x*` {{ 7*7 }} Ä'


def classified() -> Pictures:
    """What a classification has instead of pairs."""
    bins = [CalibrationBin(count=0, confidence=None, accuracy=None)] * 5
    bins += [CalibrationBin(count=10 + index, confidence=0.5 + index / 10, accuracy=0.6) for index in range(5)]
    confusion = Confusion(labels=("no", HOSTILE), counts=((40, 2), (5, 13)))
    return Pictures(test=Predictions(confusion=confusion, calibration=Calibration(bins=tuple(bins), expected_error=0.12)))


FRONT = (3, 7, 12)


def traded() -> Result:
    """What a result has of a second objective."""

    def at(place: int) -> FrontTrial:
        return FrontTrial(
            trial=FRONT[place],
            values={"rmse": 50.0 + place, "gap": 9.0 - 2 * place},
            recipe={"activation": "relu", "dropout": 0.25 * place, "lr": 0.003},
            regularizers=("dropout",) if place else (),
        )

    also = {"also": {"gap": spread(8.0)}}
    trained = {"winner": winner(**also), "others": (setting("trial 7", 51.0, **also),)}
    return result(front=tuple(at(place) for place in range(3)), **trained)


def trial(number: int, state: Any = "complete") -> TrialRecord:
    draw = random.Random(number)
    params = {
        "use_dropout": number % 3 > 0,
        "lr": 10 ** -draw.uniform(2, 4),
        "normalization": draw.choice(["none", "batch"]),
    }
    if params["use_dropout"]:
        params["dropout"] = draw.uniform(0.1, 0.5)
    value = None if state == "fail" else 50.0 + draw.uniform(0, 10)
    also = {} if value is None else {"gap": 70.0 - value + draw.uniform(0, 3)}
    ended = NOW + timedelta(seconds=3)
    return TrialRecord(number, state, value, 3, "epochs", 9, 0, params, {}, NOW, ended, also=also)


def source(found: Result | None = None, **changes: Any) -> Source:
    states = ["complete", "complete", "pruned", "complete", "complete", "fail"]
    trials = [trial(number, states[number % 6]) for number in range(60)]
    record = StudyRecord(
        id=4,
        name=changes.pop("name", "risk"),
        state=StudyState.FINISHED,
        reason=None,
        spec={
            "data": {"dataset": "diabetes"},
            "seed": 3,
            "task": "regression",
            "budget": {"trials": 60, "epochs": 40},
            "sampler": {"name": "tpe"},
            "pruner": {"name": "median"},
            "metric": "rmse",
            "also": changes.pop("also", []),
            "early_stopping": {"patience": 9, "min_delta": 0.0, "restore_best": True, "monitor": "metric"},
        },
        owner="default",
        priority=0,
        dataset_id=None,
        metric="rmse",
        direction="minimize",
        budget_trials=60,
        counts=TrialCounts(0, 0, 40, 10, 10),
        epochs=900,
        best=None,
        result=None,
        created_at=NOW,
        started_at=NOW,
        finished_at=NOW,
        now=NOW,
    )
    record_of_test = [Reading(at=NOW, who="worker 1", purpose="final score")]
    return Source(record, result() if found is None else found, changes.pop("trials", trials), record_of_test)
