"""A whole study with snapshots: what is handed out is the average of the weights at the ends of cycles, of every seed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from service.report import Source, build_report, to_markdown
from service.result import Result
from service.store.records import StudyRecord
from tests.trained import archive_of
from tests.unit.test_whole_studies import Bench, finished
from workers.archive.read import read_archive
from workers.plain.loader import Model
from workers.plain.network import Average, Shape, build
from workers.plain.preprocessing import features

Studied = tuple[Bench, StudyRecord, Path]
SPACE = {"preset": "off", "lr": 0.02, "lr_schedule": "warm_restarts", "restart_period": 2, "snapshots": True, "dropout": 0.1}
BUDGET = {"trials": 1, "epochs": 6, "finalists": 1, "seeds": 2}


def study(bench: Bench, **parts: object) -> StudyRecord:
    usual = {"space": SPACE, "budget": BUDGET, "early_stopping": "off", "validation": {"method": "kfold", "folds": 2}}
    record = bench.run(**{**usual, **parts})
    finished(record)
    return record


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studied]:
    path = tmp_path_factory.mktemp("snapshots")
    bench = Bench(path)
    record = study(bench, deliver={"networks": "ensemble", "seeds": 3})
    yield bench, record, bench.unpacked(record, path / "model")
    bench.store.close()


def test_they_are_a_regularizer_that_the_ablation_leaves_out(studied: Studied) -> None:
    result = Result.model_validate(studied[1].result)
    assert set(result.winner.regularizers) == {"snapshots", "dropout"}
    assert {row.without for row in result.ablation} == {"snapshots", "dropout"}
    assert "snapshots" not in result.baseline.recipe
    assert result.winner.gap is not None
    assert result.winner.train is not None
    assert result.winner.train.mean + -result.winner.gap.train_valid == pytest.approx(result.winner.valid.mean, rel=1e-4)
    assert result.weights is not None
    names = [layer.name for layer in result.weights[result.winner.name].layers]
    assert names == [layer.name for layer in result.weights["unregularized"].layers]


def test_all_of_every_seed_are_handed_out_as_one_average(studied: Studied) -> None:
    bench, record, folder = studied
    result = Result.model_validate(record.result)
    assert result.model is not None
    assert result.model.networks == 6, "of three seeds, at the end of the cycle of 2 and of that of 4 epochs"
    model, frame = Model.load(folder), pd.read_csv(bench.path)
    x = torch.from_numpy(features({name: frame[name] for name in frame}, model.preprocessing))
    weights, each = load_file(folder / "weights.safetensors"), []
    for number in range(6):
        network, start = build(Shape.from_json(model.about["model"])), Average.names(number)
        network.load_state_dict({name.removeprefix(start): w for name, w in weights.items() if name.startswith(start)})
        with torch.no_grad():
            each.append(network.eval()(x).double().softmax(1))
    assert min(float((each[0] - one).abs().max()) for one in each[1:]) > 1e-3, "they differ"
    expected = np.array(model.about["classes"])[torch.stack(each).mean(0).argmax(1).numpy()]
    assert (expected == model.predict(frame)).mean() > 0.99


def test_report_and_card_tell_of_how_many(studied: Studied) -> None:
    bench, record, folder = studied
    trials, _ = bench.store.history.page(record.id, limit=100)
    sentence = "Each is the average of its weights at 2 ends of cycles of the learning rate."
    assert sentence in to_markdown(build_report(Source(record, Result.model_validate(record.result), trials)))
    card = (folder / "README.md").read_text()
    assert sentence in card
    assert "- snapshots: True" in card
    assert json.loads((folder / "recipe.json").read_text())["networks"] == 6


def test_the_program_keeps_them_too(studied: Studied) -> None:
    bench, _, folder = studied
    done = subprocess.run(
        [sys.executable, "train.py", str(bench.path)], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = load_file(folder / "trained.safetensors")
    assert {name.split(".")[1] for name in names} == {"0", "1"}


@pytest.mark.parametrize("deliver", ["off", {"networks": "single"}, {"networks": "folds", "seeds": 1}], ids=str)
def test_whatever_is_delivered_has_its_snapshots(studied: Studied, deliver: object, tmp_path: Path) -> None:
    bench = studied[0]
    record = study(bench, deliver=deliver)
    about, _, _ = read_archive(archive_of(bench.store, record.id))
    runs = 2 if isinstance(deliver, dict) and deliver["networks"] == "folds" else 1
    assert about["networks"] == 2 * runs
    assert about["chosen"]["networks"] == 2 * runs
    assert "ends of cycles" in about["chosen"]["rule"]
    predicted = Model.load(bench.unpacked(record, tmp_path / "model")).predict(bench.path)
    assert set(predicted) <= {"0", "1", "2"}
