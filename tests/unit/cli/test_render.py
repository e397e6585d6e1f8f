"""What the terminal shows: tables that hold whatever users have named things, and every part of an answer."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console, RenderableType

from service.cli import lists, render, render_datasets
from service.cli.watch import line
from service.client.connection import Refused, visible
from service.result import (
    Ablation,
    Ensemble,
    FrontTrial,
    Gap,
    Importance,
    Interval,
    Member,
    Recommendation,
    Result,
    Setting,
    Single,
    Winner,
)
from service.result.base import later
from tests import results
from tests.results import interval


def shown(what: RenderableType, width: int = 160) -> str:
    """As the commands print it."""
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    console.print(what)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def setting(name: str, mean: float, **more: Any) -> Setting:
    recipe = {"dropout": 0.25, "l1": 1e-4}
    test = interval(mean + 1)
    return results.setting(name, mean + 1, recipe=recipe, valid=results.spread(mean), test=test, gap=None, **more)


def gap(train_test: float) -> Gap:
    return Gap(train_valid=train_test - 1, valid_test=1.0, train_test=train_test)


RESULT = results.result(
    metric="balanced_accuracy",
    direction="maximize",
    verdict="Trial 3 beats the unregularized network.",
    winner=Winner.of(setting("trial 3", 55.0)).model_copy(update={"gap": gap(7.5)}),
    baseline=setting("unregularized", 73.0).model_copy(update={"gap": gap(22.0)}),
    others=(
        setting("early stopping only", 57.0),
        setting("trial 9", 55.2),
        setting("broken", 0).model_copy(update={"valid": None, "test": None}),
    ),
    ties=("trial 9",),
    ablation=(
        Ablation(without="l1", valid=results.spread(56), change=1.0, low=math.nan, high=math.nan, n=1),
        Ablation(without="dropout", valid=results.spread(60), change=5.0, low=4.25, high=5.75, n=5),
    ),
    recommended=Recommendation(name="trial 9", reason="it is simpler", recipe={}),
    gain=interval(18.5, 7.0),
    ensemble=Ensemble(
        members=(Member(name="trial 9", seed=0, share=0.5),) * 2,
        valid=54.0,
        test=Interval(mean=53.25, low=50.5, high=56.75, n=88, seeds=1, se_rows=1.0, se_seeds=0.0),
        single=Single(name="trial 3", seed=0, valid=55.0, test=interval(55.75)),
        gain=interval(2.5),
    ),
    importance=Importance(fanova={"dropout": 0.75, "l1": 0.25}, ped_anova=None, trials=30, reason=None),
)


def test_an_answer_shows_all_of_it_the_verdict_first() -> None:
    text = shown(render.result(RESULT))
    assert text.startswith("Trial 3 beats")
    for part in (
        "trial 3 (winner)",
        "unregularized",
        "early stopping only",
        "trial 9 (tie)",
        "did not train",
        "55 ± 0.5",
        "55 – 57",
        "dropout 0.25, l1 0.0001",
        "balanced accuracy",
        "266 training, 88 validation, 88 test (locked)",
        "1 min 23 s",
        "87%",
        "4.25 – 5.75",
        "trial 9: it is simpler",
        "18.5 on the test rows (11.5 – 25.5)",
        "7.5 from training to test rows; unregularized 22",
        "2 trained networks combined: test 53.25 (50.5 – 56.75); best single network 55.75",
        "dropout 75%, l1 25%",
    ):
        assert part in text
    rows = [row for row in text.splitlines() if "±" in row]
    assert [row.split()[1] for row in rows[-2:]] == ["dropout", "l1"]


@pytest.mark.parametrize(
    "missing",
    [{"ablation": ()}, {"utilization": {}}, {"ties": ()}, *({name: None} for name in sorted(later(Result)))],
    ids=lambda missing: next(iter(missing)),
)
def test_an_answer_without_its_optional_parts(missing: dict[str, Any]) -> None:
    assert "trial 3 (winner)" in shown(render.result(RESULT.model_copy(update=missing)))


def test_a_replay_is_the_same_or_what_differs_is_listed() -> None:
    same = {"same": True, "same_order": True, "trials": 30, "replay_of": 4}
    assert "All 30 trials have the same parameters and values as in study 4." in shown(render.comparison(same))
    assert "in a different order" in shown(render.comparison({**same, "same_order": False}))
    differences = [{"number": 7, "field": "value", "was": 1.5, "now": 1.75}]
    made_of = {"threads": [1, 2]}
    other = {**same, "same": False, "differing": 1, "largest_difference": 0.125, "differences": differences}
    text = shown(render.comparison({**other, "made_of": made_of}))
    for part in ("1 of 30 trials differ from study 4", "at most 0.12", "7", "1.75", "threads: 1 then, 2 now"):
        assert part in text


def test_a_narrow_terminal_loses_no_numbers() -> None:
    text = shown(render.result(RESULT), width=60)
    assert "55 ± 0.5" in text
    assert "(winner)" in text


def study(**parts: Any) -> dict[str, Any]:
    trials = {"waiting": 1, "running": 2, "complete": 3, "pruned": 4, "fail": 0, "finished": 7, "budget": 10}
    best = {"number": 5, "value": 0.123456, "step": 7, "params": {"lr": 0.001, "per_layer": [0.1, 0.2], "nesterov": True}}
    return {
        "id": 1,
        "name": "mine",
        "state": "running",
        "reason": None,
        "metric": "rmse",
        "objectives": {"rmse": "minimize"},
        "trials": trials,
        "best": best,
        "elapsed_seconds": 61.0,
        "remaining_seconds": 30.0,
        **parts,
    }


def test_names_with_brackets_are_names() -> None:
    name = "[/b] [red]x :smile:"
    assert name in shown(render.studies({"studies": [study(name=name)]}))
    assert name in shown(render.study(study(name=name)))
    issue = {
        "field": "space.normalization",
        "message": "cannot be '[none]'",
        "value": ["[bold]"],
        "allowed": ["none", "batch"],
    }
    text = shown(render.refusal(Refused({"detail": "x", "status": 422, "errors": [issue]})))
    for part in ("space.normalization", "cannot be '[none]'", "[bold]", "none, batch"):
        assert part in text


def test_a_refusal_without_fields_is_its_sentence() -> None:
    assert (
        shown(render.refusal(Refused({"detail": "study 9 does not exist", "status": 404}))).strip()
        == "study 9 does not exist"
    )


def test_several_objectives_are_named_and_have_a_front() -> None:
    two = study(objectives={"rmse": "minimize", "r2": "maximize"})
    assert "rmse, r2" in shown(render.studies({"studies": [two]}))
    assert "rmse (minimize), r2 (maximize)" in shown(render.study(two))
    assert "minimize" not in shown(render.study(study()))
    found = tuple(
        FrontTrial(trial=n, values={"rmse": 50.0 + n, "r2": n / 100}, recipe={"l1": 0.1, "lr": 1}, regularizers=on)
        for n, on in enumerate([(), *[("l1",)] * 11])
    )
    text = " ".join(shown(render.result(RESULT.model_copy(update={"front": found}))).split())
    assert "Pareto front of rmse and r2: 12 non-dominated trials; the first 10 are shown" in text
    for part in ("none", "59", "0.09", "l1 0.1"):
        assert part in text
    assert "60" not in text.split("Pareto front")[1].split("Recommended")[0]


def test_a_study_in_full_and_in_a_line() -> None:
    text = shown(render.study(study(state="failed", reason="its data vanished")))
    for part in (
        "failed – its data vanished",
        "7 of 10 finished",
        "rmse 0.1235 in trial 5",
        "per_layer 0.1, 0.2",
        "1 min 01 s",
    ):
        assert part in text
    assert line(study()) == "7/10 finished · 2 running · 4 pruned · best rmse 0.1235 · 30 s left"
    assert line(study(state="paused", best=None)) == "7/10 finished · 2 running · 4 pruned · paused"
    failed = study()
    failed["trials"]["fail"] = 2
    assert "2 failed" in line(failed)


def test_workers_and_data_sets() -> None:
    stats = {"state": "searching", "study": 4, "lanes": 32, "shares": {"training": 0.9}}
    worker = {"name": "host:1", "device": "cuda:0", "state": "alive", "stats": stats}
    text = shown(lists.workers([worker, {**worker, "state": "silent", "stats": {}}]))
    for part in ("cuda:0", "searching study 4", "32", "90%", "silent"):
        assert part in text
    columns = [{"name": f"c{index}", "kind": "numeric"} for index in range(12)]
    source = {"file": None, "address": None, "database": "sales", "query": "SELECT *\nFROM sold"}
    wide = {"id": "abc", "name": "wide", "rows": 7, "columns": columns, "source": source, "created_at": None}
    assert "c4 (numeric), and 7 more" in (text := shown(render_datasets.datasets([wide])))
    assert "sales: SELECT * FROM sold" in text


def test_a_data_set_is_described() -> None:
    column = {"name": "age", "kind": "numeric", "why": "numbers", "distinct": 9, "missing": 2, "notes": ["[b]odd"]}
    source = {"file": None, "address": "s3://bucket/people.csv", "database": None, "query": None}
    about = {"format": "csv", "size": 99, "sha256": "abcdef", "owners": ["ann"], "created_at": "2026-01-31T12:30:15.5Z"}
    found = {"id": "abc", "name": "people", "rows": 7, "columns": [column], "source": source, **about}
    text = shown(render_datasets.dataset(found))
    for part in ("s3://bucket/people.csv", "2026-01-31 12:30", "7 rows, 99 bytes as csv", "abcdef", "ann", "[b]odd"):
        assert part in text
    assert render_datasets.received({**found, "unchanged": True, "others": []}).endswith(
        "; unchanged since 2026-01-31 12:30"
    )
    others = [{"id": "first"}, {"id": "second"}]
    assert render_datasets.received({**found, "unchanged": False, "others": others}).endswith("'people': first, second")
    assert render_datasets.received({**found, "unchanged": False, "others": []}) == "data set abc: 7 rows, 1 columns"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.9, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3600, "1 h 00 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_durations(value: float | None, text: str) -> None:
    assert render.seconds(value) == text


def test_names_write_nothing_but_themselves_on_a_terminal() -> None:
    document = {"name": "a\x1b]0;title\x07b\x9b2Jc\r", "list": [{"k\x1b": "line\n\ttab é"}], "n": 1.5, "none": None}
    assert visible(document) == {
        "name": "a\ufffd]0;title\ufffdb\ufffd2Jc\ufffd",
        "list": [{"k\ufffd": "line\n\ttab é"}],
        "n": 1.5,
        "none": None,
    }
