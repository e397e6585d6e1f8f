"""Whole studies of several targets, labels and numbers: submit, answer, archive, loader, program, report and ONNX."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from service.cli import render
from service.report import Source, build_report, to_markdown
from service.result import Result
from service.store.records import StudyRecord
from tests.trained import archive_of
from tests.unit.test_onnx import opened, predicted
from tests.unit.test_whole_studies import Bench, finished
from workers.archive.onnx import to_onnx
from workers.data import DataSource, load_table
from workers.data.split import Division, split_rows
from workers.plain.loader import Model, predict_file

ROWS = 300
TARGETS = {"multilabel": ["hot", "wet", "far"], "regression": ["large", "small"]}
METRIC = {"multilabel": "f1_macro", "regression": "rmse"}
Studied = tuple[str, Bench, StudyRecord, Path]


def table() -> pd.DataFrame:
    """Labels as words, numbers and truth values, of which one is rare; numbers of different size, with a gap in one row."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(ROWS, 3))
    frame = pd.DataFrame(x, columns=list("abc"))
    frame["hot"] = np.where(x[:, 0] + 0.3 * rng.normal(size=ROWS) > 0, "yes", "no")
    frame["wet"] = (x[:, 1] + 0.3 * rng.normal(size=ROWS) > 1.3).astype(int)
    frame["far"] = x[:, 2] + 0.3 * rng.normal(size=ROWS) > 0.5
    frame["large"] = 1000.0 + 500.0 * x[:, 0] + 50.0 * rng.normal(size=ROWS)
    frame["small"] = 0.01 * x[:, 1] + 0.002 * rng.normal(size=ROWS)
    frame.loc[5, "small"] = np.nan
    return frame


@pytest.fixture(scope="module", params=TARGETS)
def studied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studied]:
    task = request.param
    path = tmp_path_factory.mktemp(task)
    bench = Bench(path)
    others = [name for names in TARGETS.values() for name in names if name not in TARGETS[task]]
    table().to_csv(path / "rows.csv", index=False)
    record = bench.run(
        data={"path": str(path / "rows.csv"), "target": TARGETS[task], "drop": others},
        metric=METRIC[task],
        space={"preset": "off", "lr": [0.01, 0.02], "weight_decay": 0.01},
        budget={"trials": 2, "epochs": 30, "finalists": 2, "seeds": 2},
        validation={"method": "kfold", "folds": 2},
        early_stopping={"patience": 15},
        deliver={"seeds": 2},
    )
    finished(record)
    yield task, bench, record, bench.unpacked(record, path / "model")
    bench.store.close()


def test_the_answer_has_each_target_by_itself(studied: Studied) -> None:
    task, _, record, _ = studied
    assert record.spec["task"] == task
    result = Result.model_validate(record.result)
    assert result.targets is not None
    assert [each.name for each in result.targets] == TARGETS[task]
    assert result.winner.test is not None
    each = [one.winner.mean for one in result.targets]
    if task == "multilabel":
        assert result.winner.test.mean == pytest.approx(np.mean(each), rel=1e-5)
        assert result.winner.test.mean > 0.5
        assert result.model is not None
        assert result.model.thresholds is not None
        assert len(result.model.thresholds.biases) == 3
        assert result.model.calibration is not None
    else:
        frame = table().dropna()
        assert result.rows.train + result.rows.valid + result.rows.test == len(frame)
        in_deviations = np.array(each) / frame[TARGETS[task]].std().to_numpy()
        assert result.winner.test.mean == pytest.approx(in_deviations.mean(), rel=0.15), "of other rows' deviations"
        assert 0 < result.winner.test.mean < 0.8, "1 is what the mean predicts"


def test_the_delivered_network_predicts_a_column_for_each_target(studied: Studied, tmp_path: Path) -> None:
    task, _, _, folder = studied
    frame, model = table().dropna(), Model.load(folder)
    names = TARGETS[task]
    found = model.predict(frame)
    assert found.shape == (len(frame), len(names))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    predict_file(model, str(tmp_path / "rows.csv"), str(tmp_path / "out.csv"))
    written = pd.read_csv(tmp_path / "out.csv", dtype=str if task == "multilabel" else float)
    assert written.columns[: len(names)].tolist() == names
    if task == "regression":
        np.testing.assert_allclose(written.to_numpy(), found)
        assert reference.r2_score(frame[names], found, multioutput="raw_values").min() > 0.5
        return
    assert written[names].to_numpy().tolist() == found.tolist()
    truth = frame[names].astype(str).to_numpy()
    share = model.probabilities(frame)
    np.testing.assert_allclose(written[[f"probability of {name}" for name in names]].astype(float), share)
    for place, yes in enumerate(("yes", "1", "True")):
        assert set(truth[:, place]) == set(found[:, place])
        assert reference.f1_score(truth[:, place], found[:, place], pos_label=yes) > 0.5
        assert reference.roc_auc_score(truth[:, place] == yes, share[:, place]) > 0.85


def test_its_program_trains_it_again(studied: Studied) -> None:
    _, bench, _, folder = studied
    rows = bench.path.with_name("rows.csv")
    complete = folder.with_name("complete.csv")
    table().dropna().to_csv(complete, index=False)
    done = subprocess.run(
        [sys.executable, "train.py", str(complete)], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, *_, last = (float(line.split("watched ")[1]) for line in done.stdout.strip().splitlines())
    assert last < 0.8 * first
    assert rows.exists()


def test_report_card_and_terminal_have_each_target(studied: Studied) -> None:
    task, bench, record, folder = studied
    result = Result.model_validate(record.result)
    trials, _ = bench.store.history.page(record.id, limit=100)
    report = to_markdown(build_report(Source(record, result, trials)))
    card = (folder / "README.md").read_text()
    terminal = dict(render._remarks(result))["Each target"]
    for name in TARGETS[task]:
        assert f"| {name} |" in report
        assert f"`{name}`" in card
        assert name in terminal
    assert "a mean over the " in report


def test_its_onnx_model_is_what_pytorch_predicts(studied: Studied) -> None:
    task, bench, record, folder = studied
    session, model = opened(to_onnx(archive_of(bench.store, record.id))), Model.load(folder)
    rows = table().dropna().head(50)
    found, expected = predicted(session, rows), model.predict(rows)
    if task == "regression":
        np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-6)
        return
    labels, shares = found
    np.testing.assert_allclose(shares, model.probabilities(rows), rtol=1e-4, atol=1e-5)
    assert (np.array(labels) == expected).mean() > 0.97, "but for those at a threshold"


def test_rare_labels_are_in_every_part(tmp_path: Path) -> None:
    """Of 400 rows 10 have the rarest label: 2 of these in the test part, 1 or 2 in each fold."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(400, 2)), columns=["a", "b"])
    frame["rare"] = (np.arange(400) % 40 == 0).astype(int)
    frame["usual"] = (np.arange(400) % 3 > 0).astype(int)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    raw = load_table(DataSource("multilabel", path=tmp_path / "rows.csv", target=("rare", "usual")))
    split = split_rows(raw, Division(3, folds=5))
    assert raw.target[split.test].sum(0).tolist()[0] == 2
    assert {int(raw.target[valid][:, 0].sum()) for _, valid in split.folds} <= {1, 2}
    share = raw.target[:, 1].mean()
    assert all(abs(raw.target[valid][:, 1].mean() - share) < 0.05 for _, valid in split.folds)


def test_arrays_have_several_targets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y: Any = rng.normal(size=(60, 3))
    y[7, 1] = np.nan
    np.savez(tmp_path / "rows.npz", x=rng.normal(size=(60, 4)), y=y)
    raw = load_table(DataSource("regression", path=tmp_path / "rows.npz", format="npz"))
    assert (raw.targets, raw.outputs, raw.target.shape) == (("y0", "y1", "y2"), 3, (59, 3))


def test_files_that_are_read_row_by_row_have_several_targets(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "rows.parquet")
    source = DataSource("regression", path=tmp_path / "rows.parquet", format="parquet", target=("large", "small"))
    whole, by_rows = (load_table(each) for each in (source, replace(source, scratch=tmp_path, most=0)))
    assert by_rows.records is not None
    assert by_rows.records.names == tuple(whole.features.columns)
    np.testing.assert_array_equal(by_rows.target, whole.target)
    assert by_rows.data_hash() == whole.data_hash()
