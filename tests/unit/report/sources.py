"""A finished study as a report gets it, without a database."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from service.report import Source
from service.store.records import StudyRecord, StudyState, TrialCounts, TrialRecord

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = '<script>alert("1")</script> | `*x*` {{ 7*7 }} Ä'


def interval(mean: float, width: float = 1.0) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width, "n": 88, "seeds": 5}


def spread(mean: float) -> dict[str, float]:
    return {"mean": mean, "std": 0.5, "n": 5}


def setting(name: str, test: float, **more: Any) -> dict[str, Any]:
    recipe = {"activation": "relu", "dropout": 0.25, "lr": 0.003, "optimizer": "adamw", "widths": [32.0, 16.0]}
    return {
        "name": name,
        "role": "finalist",
        "trial": None,
        "recipe": recipe,
        "regularizers": ["dropout"],
        "train": spread(test - 9),
        "valid": spread(test - 1),
        "test": interval(test),
        **more,
    }


def curve(level: float) -> dict[str, Any]:
    epochs = list(range(1, 21))
    course = [level + 10.0 / epoch for epoch in epochs]
    return {"epochs": epochs, "seeds": [5] * 20, "best": 12.0, "train_loss": course, "loss": course, "rmse": course}


def result(**changes: Any) -> dict[str, Any]:
    """Everything that a result may hold, of a regression."""
    whole: dict[str, Any] = {
        "metric": "rmse",
        "direction": "minimize",
        "verdict": "Test rmse 50 with dropout, better than 60 for the same network without regularization.",
        "winner": setting("trial 3", 50.0, trial=3),
        "baseline": setting("unregularized", 60.0, regularizers=[]),
        "others": [setting("trial 5", 51.0), setting("framework defaults", 59.0)],
        "gain": interval(10.0, 4.0),
        "ties": ["trial 5"],
        "recommended": {"name": "trial 5", "reason": "fewer weights", "recipe": {}},
        "selection": {
            "name": "trial 3",
            "found": 45.0,
            "valid": 49.0,
            "test": 50.0,
            "optimism_valid": 4.0,
            "optimism_test": 5.0,
        },
        "ablation": [
            {"without": "dropout", "valid": spread(55.0), "change": 6.0, "low": 5.0, "high": 7.0, "n": 5},
            {"without": "l1", "valid": spread(48.0), "change": -1.0, "low": None, "high": None, "n": 1},
        ],
        "ensemble": {"members": [{}, {}], "test": interval(49.0), "gain": interval(1.0), "single": {"test": interval(50.0)}},
        "importance": {"fanova": {"dropout": 0.7, "lr": 0.3}, "ped_anova": {"lr": 0.5}, "trials": 30, "reason": None},
        "effects": [{"setting": "lr", "bins": [{"low": 1e-4, "high": 1e-3, "n": 3, "mean": 52.0, "standard_error": None}]}],
        "weights": {"trial 3": {"norm": spread(9.0), "sparsity": spread(0.1), "layers": []}},
        "curves": {"trial 3": curve(1.0), "unregularized": curve(2.0)},
        "pictures": {"test": {"pairs": [[1.0, 2.0], [3.0, 2.5]]}},
        "rows": {"train": 266, "valid": 88, "test": 88, "duplicates": 2},
        "seeds": 5,
        "test_accesses": 1,
        "provenance": {"data_hash": "cd" * 32, "device": "x86_64", "versions": {"torch": "2.13", "gone": None}},
        "model": {"available": True, "rule": "It is the best.", "seed": 7, "epoch": 3, "sha256": "ab" * 32},
    }
    return {**whole, **changes}


def classified() -> dict[str, Any]:
    """What a classification has instead of pairs."""
    bins: list[dict[str, Any]] = [{"count": 0, "confidence": None, "accuracy": None}] * 5
    bins = [*bins, *({"count": 10 + index, "confidence": 0.5 + index / 10, "accuracy": 0.6} for index in range(5))]
    counts = [[40, 2], [5, 13]]
    pictures = {"confusion": {"labels": ["no", HOSTILE], "counts": counts}}
    return {"test": {**pictures, "calibration": {"bins": bins, "expected_error": 0.12}}}


FRONT = (3, 7, 12)


def traded() -> dict[str, Any]:
    """What a result has of a second objective."""

    def at(place: int) -> dict[str, Any]:
        values = {"rmse": 50.0 + place, "gap": 9.0 - 2 * place}
        recipe = {"activation": "relu", "dropout": 0.25 * place, "lr": 0.003}
        return {"trial": FRONT[place], "values": values, "recipe": recipe, "regularizers": ["dropout"] if place else []}

    also = {"also": {"gap": spread(8.0)}}
    trained = {"winner": {**setting("trial 3", 50.0, trial=3), **also}, "others": [{**setting("trial 7", 51.0), **also}]}
    return result(front=[at(place) for place in range(3)], **trained)


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


def source(found: dict[str, Any] | None = None, **changes: Any) -> Source:
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
        result=found,
        created_at=NOW,
        started_at=NOW,
        finished_at=NOW,
        now=NOW,
    )
    record_of_test = [{"at": NOW, "who": "worker 1", "purpose": "final score"}]
    return Source(record, result() if found is None else found, changes.pop("trials", trials), record_of_test)
