"""Tables of any kind, from upload to prediction: an answer or a sentence, and the loader reads rows as training did."""

from __future__ import annotations

import csv
import tempfile
import warnings
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.api.app import create_app
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store, StudyState, open_store
from tests.unit.test_whole_studies import UntilItEnds
from workers.archive.read import read_archive
from workers.plain.loader import Model, NotUnderstood
from workers.study_data import StudyData
from workers.worker import Worker

BUDGET = {"trials": 2, "epochs": 2, "finalists": 1, "seeds": 2}
SPEC = {"model": {"width": 8, "depth": 1}, "budget": BUDGET, "validation": {"method": "holdout"}, "deliver": {"seeds": 2}}

ODD = [
    "",
    "NA",
    "None",
    "nan",
    "?",
    "true",
    "False",
    "1_0",
    "1e5",
    "-0",
    "=1+1",
    'a "b"',
    "a,b",
    "line\nbreak",
    " x",
    "Ä€",
    "☃",
]
NAMES = st.one_of(
    st.sampled_from(["a", "B", "x y", "x,y", "1", "2.5", "Ä", "id", "a: days", "None", "=A1", "\t", "index", "'"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
)


def _dates(row: int, form: str) -> str:
    return (date(2020, 1, 1) + timedelta(days=row * 11 % 700)).strftime(form)


CELLS: dict[str, Any] = {
    "whole numbers": lambda rng, rows: rng.integers(-5, 50, rows).tolist(),
    "huge numbers": lambda rng, rows: (rng.integers(2**53, 2**62, rows)).tolist(),
    "fractions": lambda rng, rows: rng.normal(size=rows).round(3).tolist(),
    "wide fractions": lambda rng, rows: (10.0 ** rng.integers(-300, 300, rows)).tolist(),
    "infinite": lambda rng, rows: rng.choice([1.0, 2.0, np.inf, -np.inf], rows).tolist(),
    "true and false": lambda rng, rows: (rng.random(rows) < 0.5).tolist(),
    "two words": lambda rng, rows: rng.choice(["yes", "no"], rows).tolist(),
    "odd words": lambda rng, rows: rng.choice(ODD, rows).tolist(),
    "numbers and words": lambda rng, rows: [str(row) if row % 7 else "none" for row in range(rows)],
    "ids": lambda rng, rows: [f"k{value}" for value in rng.permutation(rows)],
    "one value": lambda rng, rows: [3] * rows,
    "nothing": lambda rng, rows: [None] * rows,
    "days": lambda rng, rows: [_dates(row, "%Y-%m-%d") for row in range(rows)],
    "american days": lambda rng, rows: [_dates(row, "%m/%d/%Y") for row in range(rows)],
    "thousands": lambda rng, rows: [f"{row * 37 % 90 + 1},{row * 7 % 1000:03}.5" for row in range(rows)],
    "decimal commas": lambda rng, rows: [f"{row},{row % 10}7" for row in range(rows)],
    "units": lambda rng, rows: [f"{row % 31} kg" for row in range(rows)],
    "sentences": lambda rng, rows: [f"the {row} brown foxes of {row * 3} towns jumped" for row in range(rows)],
    "one letter": lambda rng, rows: rng.choice(list("abcdefg"), rows).tolist(),
}
LIKELY_TARGETS = ("two words", "fractions", "one letter", "whole numbers", "thousands", "decimal commas", "units")


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, str, str]:
    """A table, its target, and the format of its file."""
    rows = draw(st.sampled_from([60, 40, 80, 3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(NAMES, min_size=2, max_size=6, unique=True))
    columns: dict[str, list[Any]] = {}
    target = draw(st.sampled_from(names))
    for name in names:
        kinds = [*LIKELY_TARGETS, *LIKELY_TARGETS, *sorted(CELLS)] if name == target else sorted(CELLS)
        cells = CELLS[draw(st.sampled_from(kinds))](rng, rows)
        gaps = draw(st.sampled_from([0.0, 0.0, 0.2]))
        columns[name] = [None if rng.random() < gaps else cell for cell in cells]
    return pd.DataFrame(columns), target, draw(st.sampled_from(["csv", "parquet"]))


def _write(table: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.columns)
        writer.writerows([["" if value is None else value for value in row] for row in table.astype(object).to_numpy()])


def _sentence(answer: Any) -> str:
    assert answer.status_code == 422, answer.text
    (message, *_) = [issue["message"] for issue in answer.json()["errors"]]
    return str(message)


@pytest.mark.costly
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # each takes seconds, and shrinking hundreds of them
    suppress_health_check=list(HealthCheck),
)
@given(tables())
def test_a_table_of_any_kind_gets_an_answer_or_a_sentence(made: tuple[pd.DataFrame, str, str]) -> None:
    table, target, ending = made
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        own = Settings(home=home / "home", cache=home / "cache")
        own.home.mkdir()
        store = open_store(own.database_url, create=True)
        path = home / f"rows.{ending}"
        _write(table, path)
        try:
            _from_upload_to_prediction(store, own, path, target)
        finally:
            store.close()


def _from_upload_to_prediction(store: Store, own: Settings, path: Path, target: str) -> None:
    with TestClient(create_app(store, own), base_url="http://localhost") as client:
        answer = client.post("/v1/datasets", files={"file": (path.name, path.read_bytes())})
        if answer.status_code != 201:
            assert _sentence(answer)
            return
        dataset = answer.json()
        spec = SPEC | {"data": {"dataset": dataset["id"], "target": target}}
        answer = client.post("/v1/studies", json=spec)
        if answer.status_code != 201:
            assert _sentence(answer)
            return
        study = answer.json()["id"]
        Worker(store, own, "cpu", UntilItEnds(store, study)).run()
        record = store.studies.get(study)
        if record.state is StudyState.FAILED:
            assert record.reason
            assert "internal error" not in record.reason, record.reason
            return
        assert record.state is StudyState.FINISHED
        answer = client.get(f"/v1/studies/{study}/model")
    result = record.result
    assert result is not None
    if answer.status_code != 200:
        assert not result["model"]["available"]
        assert result["model"]["reason"]
        return
    model = Model.of(*read_archive(answer.content))
    prepared = StudyData(store, own, torch.device("cpu")).of(record, StudySpec.model_validate(record.spec))
    stored = own.datasets_dir / f"{dataset['id']}.{dataset['format']}"
    rows = stored if dataset["format"] == "csv" else pd.read_parquet(stored)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotUnderstood)
        # A category may have been in no row that preprocessing was fitted on; all else was read in training.
        warnings.filterwarnings("ignore", ".*unknown to training", NotUnderstood)
        by_loader = model.outputs(rows)
    with_target = prepared.table.kept
    np.testing.assert_allclose(
        by_loader.numpy()[with_target], model.outputs(prepared.table.features).numpy(), rtol=1e-4, atol=1e-5
    )
    predictions = model.decode(by_loader)
    assert len(predictions) == dataset["rows"]
    if model.about["task"] == "regression":
        assert np.isfinite(predictions.astype(float)).all()
    else:
        assert set(predictions) <= set(prepared.table.labels)
