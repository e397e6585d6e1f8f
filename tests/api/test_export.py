"""All trials of a study as one table."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from service.api.export import table
from tests.api.test_programs import ask, send, submit

READERS = {"csv": pd.read_csv, "parquet": pd.read_parquet, "arrow": pd.read_feather}


def exported(client: TestClient, study_id: int, form: str) -> pd.DataFrame:
    answer = client.get(f"/v1/studies/{study_id}/export", params={"format": form})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="regsearch-{study_id}.{form}"'
    read: Any = READERS[form]
    frame: pd.DataFrame = read(io.BytesIO(answer.content))
    return frame


@pytest.mark.parametrize("form", READERS)
def test_every_trial_is_a_row_with_its_parameters(client: TestClient, form: str) -> None:
    space = {
        "weight_decay": {"low": 0.1, "high": 1, "off": True},
        "custom": {"norm": ["=batch", "group"], "mixed": [1, "a", True]},
    }
    study_id = submit(client, space=space, also={"size": "minimize"}, pruner="none")
    trials = ask(client, study_id, n=4)
    told = [{"trial": each["trial"], "value": 0.5, "also": {"size": 3.0}} for each in trials[:2]]
    told.append({"trial": "2", "state": "fail", "reason": "=1+1"})
    send(client, study_id, "tell", trials=told)
    frame = exported(client, study_id, form)
    assert list(frame["number"]) == [0, 1, 2, 3]
    assert list(frame["state"]) == ["complete", "complete", "fail", "running"]
    assert list(frame["val_loss"][:2]) == [0.5, 0.5]
    assert list(frame["size"][:2]) == [3.0, 3.0]
    assert frame["val_loss"][2:].isna().all()
    mark = "'" if form == "csv" else ""
    assert frame["ended_because"][2] == f"{mark}=1+1"
    assert set(frame["param_norm"]) <= {f"{mark}=batch", "group"}
    for trial in trials:
        found = frame["param_weight_decay"][trial["number"]]
        assert found == pytest.approx(trial["params"]["weight_decay"]) if trial["params"]["weight_decay"] else pd.isna(found)


@pytest.mark.parametrize("form", READERS)
def test_a_study_without_trials_has_the_columns(client: TestClient, form: str) -> None:
    frame = exported(client, submit(client), form)
    assert len(frame) == 0
    assert {"number", "state", "val_loss", "epochs"} <= set(frame.columns)


def test_an_unknown_form_or_study_is_refused(client: TestClient) -> None:
    study_id = submit(client)
    assert client.get(f"/v1/studies/{study_id}/export", params={"format": "xls"}).status_code == 422
    assert client.get("/v1/studies/77/export").status_code == 404
    assert table([], ["rmse"], "csv").startswith(b"number,state,rmse,epochs")
