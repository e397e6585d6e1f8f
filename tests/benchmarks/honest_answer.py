"""Is the answer worth it? Winner against the unregularized network on locked test sets, over paired splits of real data.

    python -m tests.benchmarks.honest_answer DIRECTORY credit-g vehicle … [--splits 10] [--name honest_answer]
        [--preset default] [--metric accuracy] [--folds 3] [--trials 100] [--epochs 100] [--width 128]

DIRECTORY holds a folder per data set with `data.csv.gz` and `meta.json` (which names target, task and categories). For
each split, fixed by its seed, a whole study runs in this process; beside it scikit-learn's HistGradientBoosting and MLP
with their defaults learn from the same prepared training and validation rows together, and are scored on the same test rows.
Exact copies of a row are on one side of every split. Takes hours: every split is kept in the result file, and the same
command goes on after the last one; with fewer `--splits` it ends with those that are there.

Differences over splits have an interval that is corrected for splits that share rows: variance times 1/n + test/train rows,
Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003).
"""

from __future__ import annotations

import gzip
import json
import math
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from service.spec import StudySpec, sign_of
from tests.benchmarks.one_process import answer_of
from tests.benchmarks.rounds import Options, Rounds, must_exist
from workers.answer.ensemble import as_output
from workers.data import DataSource, RawTable, load_table, make_split, prepare
from workers.data.prepare import features, targets
from workers.scoring.scores import exact

FILES = ("data.csv.gz", "meta.json")
OURS = ("winner", "recommended", "ensemble", "early stopping only", "framework defaults")
THEIRS = {
    "HistGradientBoosting": {"classification": HistGradientBoostingClassifier, "regression": HistGradientBoostingRegressor},
    "MLP": {"classification": MLPClassifier, "regression": MLPRegressor},
}


def measure(folder: Path, seed: int, how: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Scores of everything on one split of one data set."""
    meta = json.loads((folder / "meta.json").read_text())
    path = scratch / f"{folder.name}.csv"
    if not path.exists():
        path.write_bytes(gzip.decompress((folder / "data.csv.gz").read_bytes()))
    task = "regression" if meta["task"] == "regression" else "classification"
    data = {"path": str(path), "target": meta["target"], "categorical": meta.get("categorical", [])}
    spec = StudySpec.model_validate({"name": folder.name, "data": data, "seed": seed, **how}).resolved(task)  # type: ignore[arg-type]
    result = answer_of(spec, scratch / f"{folder.name}-{seed}", roots=(scratch,))
    categorical = tuple(spec.data.categorical)
    table = load_table(DataSource(task=task, path=path, target=spec.data.target, categorical=categorical))
    found = {each["name"]: each for each in (result["winner"], result["baseline"], *result["others"])}
    scores = {"winner": result["winner"], "recommended": found[result["recommended"]["name"]], **found}
    means = {
        name: scores[name]["test"]["mean"] for name in ("unregularized", *OURS) if name in scores and scores[name]["test"]
    }
    return {
        "metric": result["metric"],
        "rows": result["rows"],
        "scores": {**means, "ensemble": result["ensemble"]["test"]["mean"], **others(table, spec)},
        "gain": result["gain"],
        "recipe": result["winner"]["recipe"],
        "optimism_test": result["selection"]["optimism_test"],
        "wall_seconds": result["wall_seconds"],
        "finalizing_seconds": result["finalizing_seconds"],
    }


def others(table: RawTable, spec: StudySpec) -> dict[str, float]:
    """scikit-learn's models with their defaults, on the study's own split and preprocessing."""
    split = make_split(table, spec.validation, spec.seed)
    fold = prepare(table, split, 0)
    x, y = np.concatenate([fold.x_train, fold.x_valid]), np.concatenate([fold.y_train, fold.y_valid])
    unseen = features(table, split.test, fold.preprocessor), targets(table, split.test, fold.target)
    scores = {}
    for name, by_task in THEIRS.items():
        model = by_task[table.task](random_state=spec.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
        out = torch.from_numpy(_outputs(model, unseen[0], table)).float()[None]
        value = exact(table.task, str(spec.metric), out, torch.from_numpy(unseen[1]), fold.target.unit)
        scores[f"scikit-learn {name}"] = float(value[0])
    return scores


def _outputs(model: Any, x: NDArray[Any], table: RawTable) -> NDArray[np.float64]:
    """(rows, outputs) as of a network: standardized predictions, or logits of all classes of the table."""
    if table.task == "regression":
        return np.asarray(model.predict(x), dtype=np.float64)[:, None]
    shares = np.zeros((len(x), table.outputs))
    shares[:, model.classes_.astype(int)] = model.predict_proba(x)
    return as_output("classification", torch.from_numpy(shares)).numpy()


def summary(splits: list[dict[str, Any]]) -> dict[str, Any]:
    """One data set: mean scores, and what each setting gains on the unregularized network (positive is better)."""
    sign = sign_of(splits[0]["metric"])
    rows = splits[0]["rows"]
    names = [name for name in splits[0]["scores"] if all(name in each["scores"] for each in splits)]
    values = {name: np.array([each["scores"][name] for each in splits]) for name in names}
    plain, winner = values.get("unregularized"), values["winner"]
    ratio = rows["test"] / (rows["train"] + rows["valid"])
    scores = {
        name: {
            "mean": float(value.mean()),
            "std": float(value.std(ddof=1)) if len(value) > 1 else 0.0,
            "gain_on_unregularized": None if plain is None else gain(sign * (plain - value), ratio),
            "winners_gain_on_it": gain(sign * (value - winner), ratio),
        }
        for name, value in values.items()
    }
    means = ("wall_seconds", "finalizing_seconds", "optimism_test")
    return {
        "metric": splits[0]["metric"],
        "splits": len(splits),
        "rows": rows,
        "duplicates": rows["duplicates"],
        "scores": scores,
        **{name: float(np.mean([each[name] for each in splits])) for name in means},
    }


def gain(differences: NDArray[np.float64], ratio: float) -> dict[str, float | None]:
    """Mean of paired differences over splits, and its corrected interval."""
    n = len(differences)
    mean = float(differences.mean())
    if n < 2:
        return {"mean": mean, "low": None, "high": None}
    error = math.sqrt((1.0 / n + ratio) * float(differences.var(ddof=1)))
    half = float(stats.t.ppf(0.975, n - 1)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half}


def main() -> None:
    """Split by split, all data sets in each."""
    options = Options("honest_answer", __doc__, quick={"splits": 2, "trials": 6, "epochs": 5, "width": 16})
    options.add_argument("directory", type=Path, help="a folder for each data set")
    options.add_argument("names", nargs="+", help="data sets in it")
    options.add_argument("--splits", type=int, default=10, help="paired splits of each data set")
    options.add_argument("--trials", type=int, default=100, help="of each study")
    options.add_argument("--epochs", type=int, default=100, help="of a trial")
    options.add_argument("--width", type=int, default=128, help="of both hidden layers")
    options.add_argument("--preset", default="default", help="named space that is searched")
    options.add_argument("--metric", help="objective, instead of the task's default")
    options.add_argument("--folds", type=int, help="validate on this many folds instead of on a holdout")
    options.add_argument("--name", default="honest_answer", help="of the result file")
    given = options.given()
    must_exist(given.directory / name / file for name in given.names for file in FILES)
    budget = {"trials": given.trials, "epochs": given.epochs}
    how: dict[str, Any] = {"model": {"widths": [given.width] * 2}, "budget": budget, "space": {"preset": given.preset}}
    how |= {"metric": given.metric} if given.metric else {}
    how |= {"validation": {"method": "kfold", "folds": given.folds}} if given.folds else {}
    rounds = Rounds(given.name, given, count="splits")
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in given.names}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(given.splits):
            for name, splits in done.items():
                work = partial(measure, given.directory / name, seed, how, Path(scratch))
                splits.append(rounds.once(f"{name} {seed}", work))
    rounds.conclude({**how, "sets": {name: summary(splits) for name, splits in done.items()}})


if __name__ == "__main__":
    main()
