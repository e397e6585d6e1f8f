"""Is the delivered model good? By REST from 80 % of the rows to a downloaded model, which predicts the other 20 %.

    python -m tests.benchmarks.delivered DIRECTORY vehicle credit-g … [--splits 10] [--peers PYTHON]
        [--trials 100] [--without-default]

DIRECTORY holds a folder per data set with `data.csv.gz` and `meta.json`. A service runs in processes of its own. For each
split, fixed by its seed and with equal rows on one side, the 80 % are uploaded; what is downloaded is scored by accuracy or
RMSE on the 20 %, which the service never sees:

    tabular        a study with the preset of this name
    default        the same with the preset `default`
    unregularized  its network without any regularizer, trained again on all of the rows

Beside them scikit-learn's HistGradientBoosting with its defaults, and, with ``--peers``, RealMLP-TD and TabM-D of pytabkit,
which the interpreter PYTHON must have. All on the same rows and cores, one after the other; ``seconds`` has the time of
each, from the upload to the model. Every split is kept in the result file, and the same command goes on after the last, with
more splits and on other machines, too; times are of whichever it was.

Differences have the interval of Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003).
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from service.cli.local import running
from service.cli.supervisor import free_port
from service.cli.watch import watch
from service.client.connection import HttpClient
from service.result import StudyResult
from service.settings import Settings
from service.spec import Task as Kind
from tests.benchmarks.honest_answer import FILES, gain
from tests.benchmarks.rounds import Options, Rounds, must_exist
from workers.data import DataSource, Division, load_table, split_rows
from workers.plain.loader import Model

TEST_SHARE = 0.2
PEERS = ("RealMLP_TD", "TabM_D")
_PEER = """
import json, sys, time
import pandas as pd
from pytabkit.models.sklearn import sklearn_interfaces as models
name, task, train, test, target, categorical, out = sys.argv[1:]
categorical = json.loads(categorical)
frames = [pd.read_csv(path) for path in (train, test)]
frames = [frame.drop(columns=frames[0].columns[frames[0].isna().all()]) for frame in frames]  # there are such columns
for column in frames[0].columns:
    if column != target and (column in categorical or not pd.api.types.is_numeric_dtype(frames[0][column])):
        for frame in frames:
            frame[column] = frame[column].astype(str).astype("category")
    elif column != target:  # they take no missing numbers
        for frame in reversed(frames):
            frame[column] = frame[column].fillna(frames[0][column].median())
kind = getattr(models, f"{name}_{'Regressor' if task == 'regression' else 'Classifier'}")
start = time.perf_counter()
model = kind(device="cpu", random_state=0, n_threads=2).fit(frames[0].drop(columns=target), frames[0][target].astype(
    float if task == "regression" else str))
seconds = time.perf_counter() - start
predicted = model.predict(frames[1].drop(columns=target))
json.dump({"seconds": seconds, "predicted": [float(each) if task == "regression" else str(each) for each in predicted]},
          open(out, "w"))
"""


class Task:
    """One split of one data set: two CSV files, and how predictions are scored."""

    def __init__(self, folder: Path, seed: int, scratch: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        self.name, self.target = folder.name, str(meta["target"])
        self.task: Kind = "regression" if meta["task"] == "regression" else "classification"
        self.categorical: list[str] = meta.get("categorical", [])
        path = scratch / f"{folder.name}.csv"
        path.write_bytes(gzip.decompress((folder / "data.csv.gz").read_bytes()))
        source = DataSource(task=self.task, path=path, target=self.target, categorical=tuple(self.categorical))
        test = split_rows(load_table(source), Division(seed, test_fraction=TEST_SHARE)).test
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        there = rows[rows[self.target] != ""].reset_index(drop=True)
        held = np.isin(np.arange(len(there)), test)
        self.train, self.test = scratch / "train.csv", scratch / "test.csv"
        there[~held].to_csv(self.train, index=False)
        there[held].to_csv(self.test, index=False)
        self.truth = there[held][self.target].to_numpy()
        self.rows = {"train": int((~held).sum()), "test": int(held.sum())}

    def score(self, predicted: NDArray[Any]) -> float:
        """Accuracy in per cent, or the root mean squared error."""
        if self.task == "regression":
            return float(np.sqrt(np.mean((predicted.astype(float) - self.truth.astype(float)) ** 2)))
        return 100.0 * float(np.mean([_text(a) == _text(b) for a, b in zip(predicted, self.truth, strict=True)]))


def _text(label: object) -> str:
    """A class by its name; whole numbers may have been read as floats."""
    text = str(label)
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def ours(client: HttpClient, task: Task, study: dict[str, Any], scratch: Path) -> tuple[float, dict[str, Any]]:
    """The score of the model that is downloaded after a study, and what is to be known of the study."""
    dataset = client.upload(task.train, None)["id"]
    data = {"dataset": dataset, "target": task.target, "categorical": task.categorical}
    posted = client.post("/v1/studies", {"name": task.name, "data": data, "task": task.task, **study})
    ended = watch(client, posted["id"], Console(stderr=True))
    if ended["state"] != "finished":
        sys.exit(f"{task.name}: {ended['state']}: {ended['reason']}")
    result = client.result(posted["id"])
    assert isinstance(result, StudyResult), "workers ran it"
    folder = scratch / f"model-{posted['id']}"
    with zipfile.ZipFile(io.BytesIO(client.download(f"/v1/studies/{posted['id']}/model"))) as archive:
        archive.extractall(folder)
    assert result.model is not None, "it was just delivered"
    facts = {
        "recipe": dict(result.winner.recipe),
        "networks": result.model.networks,
        "refit": None if result.model.refit is None else result.model.refit.model_dump(mode="json"),
        "trials": result.trials.model_dump(),
        "search_seconds": result.search_seconds,
        "finalizing_seconds": result.finalizing_seconds,
    }
    return task.score(Model.load(folder).predict(task.test)), facts


def boosted(task: Task) -> float:
    """scikit-learn's gradient boosting with its defaults; categories are told to it."""
    train = pd.read_csv(task.train).dropna(axis=1, how="all")  # it takes no column without any number
    test = pd.read_csv(task.test)[train.columns]
    for column in train.columns.drop(task.target):
        if column in task.categorical or not pd.api.types.is_numeric_dtype(train[column]):
            kind = pd.CategoricalDtype(sorted(train[column].fillna("").astype(str).unique()))
            train[column], test[column] = (part[column].fillna("").astype(str).astype(kind) for part in (train, test))
    x, y = train.drop(columns=task.target), train[task.target]
    model = HistGradientBoostingRegressor(random_state=0)
    if task.task == "classification":
        model, y = HistGradientBoostingClassifier(random_state=0), y.astype(str)
    return task.score(np.asarray(model.fit(x, y).predict(test.drop(columns=task.target))))


def peer(python: Path, name: str, task: Task, scratch: Path) -> tuple[float, float]:
    """The score of one of pytabkit's models, and the seconds of its training without the start of the interpreter."""
    out = scratch / "peer.json"
    files = [str(task.train), str(task.test)]
    arguments = [name, task.task, *files, task.target, json.dumps(task.categorical), str(out)]
    subprocess.run([str(python), "-W", "ignore", "-c", _PEER, *arguments], check=True, capture_output=True)
    found = json.loads(out.read_text())
    return task.score(np.array(found["predicted"], dtype=object)), float(found["seconds"])


def studies(trials: int | None, *, default: bool) -> dict[str, dict[str, Any]]:
    """The studies by their names."""
    budget = {} if trials is None else {"budget": {"trials": trials}}
    plain = {"preset": "off", "lr": 1e-3}
    alone = {"trials": 1, "finalists": 1, "seeds": 2}
    found: dict[str, dict[str, Any]] = {
        "tabular": {"space": {"preset": "tabular"}, **budget},
        "default": {"space": {"preset": "default"}, **budget},
        "unregularized": {
            "space": plain,
            "validation": {"method": "holdout"},
            "early_stopping": "off",
            "pruner": "none",
            "budget": alone,
            "deliver": {"networks": "single"},
        },
    }
    return {name: study for name, study in found.items() if default or name != "default"}


def measure(folder: Path, seed: int, asked: dict[str, dict[str, Any]], peers: Path | None) -> dict[str, Any]:
    """Scores and seconds of everything on one split of one data set."""
    scores: dict[str, float] = {}
    seconds: dict[str, float] = {}
    about: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        task = Task(folder, seed, scratch)
        settings = Settings(home=scratch / "home", port=free_port())
        with running(settings, Console(stderr=True), 1) as (_, client):
            for name, study in asked.items():
                start = time.perf_counter()
                scores[name], about[name] = ours(client, task, {"seed": seed, **study}, scratch)
                seconds[name] = time.perf_counter() - start
        seconds["HistGradientBoosting"], scores["HistGradientBoosting"] = _timed(partial(boosted, task))
        for name in PEERS if peers else ():
            assert peers is not None
            scores[name], seconds[name] = peer(peers, name, task, scratch)
    return {"task": task.task, "rows": task.rows, "scores": scores, "seconds": seconds, "studies": about}


def _timed(call: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


def summary(sets: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean scores and ranks, and what `tabular` gains on the others, set by set and together."""
    tables: dict[str, dict[str, Any]] = {}
    for name, splits in sets.items():
        sign = 1.0 if splits[0]["task"] == "classification" else -1.0
        ratio = splits[0]["rows"]["test"] / splits[0]["rows"]["train"]
        values = {each: np.array([split["scores"][each] for split in splits]) for each in splits[0]["scores"]}
        tables[name] = {
            "metric": "accuracy, %" if sign > 0 else "rmse",
            "mean": {each: float(value.mean()) for each, value in values.items()},
            "rank": _ranks({each: sign * float(value.mean()) for each, value in values.items()}),
            "gain_of_tabular": {
                each: gain(sign * (values["tabular"] - value), ratio) for each, value in values.items() if each != "tabular"
            },
            "seconds": {each: float(np.mean([split["seconds"][each] for split in splits])) for each in splits[0]["seconds"]},
        }
    names = list(next(iter(tables.values()))["mean"])
    return {
        "sets": tables,
        "mean_rank": {each: float(np.mean([table["rank"][each] for table in tables.values()])) for each in names},
        "tabular_ahead_of": {
            each: sum(table["gain_of_tabular"][each]["mean"] > 0 for table in tables.values())
            for each in names
            if each != "tabular"
        },
        "clearly_behind": {
            each: [name for name, table in tables.items() if (table["gain_of_tabular"][each]["high"] or 0.0) < 0]
            for each in names
            if each != "tabular"
        },
        "n": len(tables),
    }


def _ranks(values: dict[str, float]) -> dict[str, float]:
    """1 for the largest value."""
    ranks = stats.rankdata([-value for value in values.values()])
    return dict(zip(values, map(float, ranks), strict=True))


def main() -> None:
    """Split by split, all data sets in each."""
    options = Options("delivered", __doc__, quick={"splits": 1, "trials": 6})
    options.add_argument("directory", type=Path, help="a folder for each data set")
    options.add_argument("names", nargs="+", help="data sets in it")
    options.add_argument("--splits", type=int, default=10, help="paired splits of each data set")
    options.add_argument("--trials", type=int, help="of each study; the default of the service if omitted")
    options.add_argument("--without-default", action="store_true", help="leave the preset `default` out")
    options.add_argument("--peers", type=Path, metavar="PYTHON", help="an interpreter that has pytabkit")
    given = options.given()
    must_exist(given.directory / name / file for name in given.names for file in FILES)
    asked = studies(given.trials, default=not given.without_default)
    rounds = Rounds("delivered", given, count="splits", anywhere=True, with_peers=given.peers is not None)
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in given.names}
    for seed in range(given.splits):
        for name, splits in done.items():
            work = partial(measure, given.directory / name, seed, asked, given.peers)
            splits.append(rounds.once(f"{name} {seed}", work))
    rounds.conclude(summary(done))


if __name__ == "__main__":
    main()
