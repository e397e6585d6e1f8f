"""A whole study of a quantile: objective, answer, report, archive, loader and program all speak of the same one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_pinball_loss

from service.report import Source, build_report, to_markdown
from service.result import Result
from service.store.records import StudyRecord
from tests.unit.test_whole_studies import Bench, finished
from workers.plain.loader import Model

LEVEL = 0.9
Studied = tuple[Bench, StudyRecord, Path]


def skewed(rows: int = 700) -> pd.DataFrame:
    """A target in tens whose spread grows with x: its 0.9 quantile is far from its mean."""
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 1, size=rows)
    return pd.DataFrame({"x": x, "y": 100.0 + 20.0 * x + 30.0 * x * rng.exponential(size=rows)})


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studied]:
    path = tmp_path_factory.mktemp("quantile")
    bench = Bench(path)
    skewed().to_csv(path / "rows.csv", index=False)
    record = bench.run(
        data={"path": str(path / "rows.csv"), "target": "y", "drop": []},
        task="regression",
        metric="pinball",
        quantile=LEVEL,
        also=["gap"],
        space={"preset": "off", "lr": [0.01, 0.02], "weight_decay": 0.01},
        budget={"trials": 2, "epochs": 40, "finalists": 2, "seeds": 2},
        validation={"method": "kfold", "folds": 2},
        early_stopping={"patience": 15},
    )
    finished(record)
    folder = bench.unpacked(record, path / "model")
    yield bench, record, folder
    bench.store.close()


def test_winner_and_baselines_are_scored_by_it_in_the_targets_unit(studied: Studied) -> None:
    _, record, _ = studied
    result = Result.model_validate(record.result)
    assert (record.metric, record.direction, result.metric) == ("pinball", "minimize", "pinball")
    for setting in result.settings:
        assert setting.recipe["quantile"] == LEVEL
        assert setting.gap is not None
        assert setting.train is not None
        assert setting.valid is not None
        assert setting.gap.train_valid + setting.train.mean == pytest.approx(setting.valid.mean, rel=1e-4)
    y = skewed()["y"].to_numpy()
    constant = mean_pinball_loss(y, np.full(len(y), np.quantile(y, LEVEL)), alpha=LEVEL)
    assert 0 < result.winner.valid.mean < constant
    assert result.coverage is not None
    assert result.coverage.quantile == LEVEL
    assert result.coverage.winner == pytest.approx(LEVEL, abs=0.1)


def test_the_test_score_is_scikit_learns(studied: Studied) -> None:
    _, record, _ = studied
    result = Result.model_validate(record.result)
    assert result.pictures is not None
    assert result.pictures.test is not None
    pairs = np.array(result.pictures.test.pairs)
    assert len(pairs) == result.rows.test
    assert result.ensemble is not None
    own = mean_pinball_loss(pairs[:, 0], pairs[:, 1], alpha=LEVEL)
    assert own == pytest.approx(result.ensemble.single.test.mean, rel=1e-4)


def test_the_archive_predicts_the_quantile_and_says_so(studied: Studied) -> None:
    _, _, folder = studied
    model = Model.load(folder)
    assert model.about["quantile"] == model.about["recipe"]["quantile"] == LEVEL
    assert "predicts the 0.9 quantile of `y`: about 90 % of the rows" in (folder / "README.md").read_text()
    frame = skewed()
    predicted = np.asarray(model.predict(frame), dtype=float)
    assert abs(float((frame["y"] <= predicted).mean()) - LEVEL) < 0.06


def test_the_program_trains_by_the_same_loss(studied: Studied) -> None:
    bench, _, folder = studied
    rows = bench.path.with_name("rows.csv")
    done = subprocess.run([sys.executable, "train.py", str(rows)], cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    source = (folder / "train.py").read_text()
    assert "'quantile': 0.9" in source
    assert "WATCHES['pinball']" in source
    last = done.stdout.strip().splitlines()[-1]
    training, watched = (float(part.split()[-1]) for part in last.split(": ")[1].split(", "))
    about = json.loads((folder / "recipe.json").read_text())
    y = skewed()["y"].to_numpy()
    mean = mean_pinball_loss(y, np.full(len(y), y.mean()), alpha=LEVEL) / about["target_scale"]["scale"]
    assert 0 < watched < mean
    assert 0 < training < mean


def test_the_report_says_which_quantile_and_how_many_targets_are_below(studied: Studied) -> None:
    bench, record, _ = studied
    trials, _ = bench.store.history.page(record.id, limit=100)
    said = to_markdown(build_report(Source(record, Result.model_validate(record.result), trials)))
    assert "Predicted is the 0.9 quantile: 90% of the targets should be at most the prediction." in said
    assert "test pinball" in said
    assert "| quantile | 0.9 | Level of the quantile" in said
