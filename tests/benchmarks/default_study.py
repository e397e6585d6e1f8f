"""The `default` preset on a built-in data set as an Optuna script: the same network, space, epochs, patience and pruner.

    python -m tests.benchmarks.default_study diabetes [--tuned] [--trials 40] [--processes 2]

An ordinary script: modules, a DataLoader, torch's AdamW, a report after every epoch to an SQLite file, a process per core.
``--tuned``: index batches, the fused optimizer, one thread per process. The space is read from the resolved spec, so that
it stays the one that is searched. `throughput --default` runs it in turn with ours.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from service.search.parameters import placed, recipe, walked
from service.spec import Recipe, StudySpec
from service.spec.pruners import MedianPruner
from tests.benchmarks.peers import measured_study, processes_of
from tests.benchmarks.rounds import ROOT
from workers.data import DataSource, load_table, make_split, prepare
from workers.plain.layers import dropout_of
from workers.plain.network import Shape, build
from workers.planning.cores import usable_cores

TASKS: dict[str, Literal["classification", "regression"]] = {
    "diabetes": "regression",
    "breast_cancer": "classification",
    "digits": "classification",
}
STUDY: Mapping[str, Any] = {"space": {"preset": "default"}, "validation": {"method": "holdout"}}
SEARCHED = frozenset({"l1", "weight_decay", "dropout", "input_dropout", "normalization", "lr", "lr_schedule"})
"""The settings that the default space searches, all of which the script knows; a test compares."""

Parts = tuple[Tensor, Tensor, Tensor, Tensor]


def spec_of(name: str) -> StudySpec:
    """The resolved study."""
    return StudySpec.model_validate({"data": {"dataset": name}, **STUDY}).resolved(TASKS[name])


def searched(spec: StudySpec) -> set[str]:
    """Settings of which more than one value is searched in some trial."""

    def corner(place: float) -> set[str]:
        return set(walked(spec, lambda _, kind: placed(kind, place))[0])

    names = corner(0.0) | corner(0.5) | corner(0.999)
    return {setting for setting in spec.domains if any(name == setting or name.startswith(f"{setting}.") for name in names)}


def parts_of(name: str, spec: StudySpec) -> tuple[Parts, int]:
    """Training and validation rows as the study prepares them, and the number of outputs."""
    table = load_table(DataSource(task=TASKS[name], name=name))
    fold = prepare(table, make_split(table, spec.validation, spec.seed), 0)
    arrays = (fold.x_train, fold.y_train, fold.x_valid, fold.y_valid)
    outputs = int(fold.y_train.max()) + 1 if TASKS[name] == "classification" else 1
    return tuple(torch.from_numpy(each) for each in arrays), outputs  # type: ignore[return-value]


def batches(x: Tensor, y: Tensor, size: int, *, tuned: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch's."""
    if tuned:
        for index in torch.randperm(len(x)).split(size):  # type: ignore[no-untyped-call]
            yield x[index], y[index]
    else:
        yield from DataLoader(TensorDataset(x, y), batch_size=size, shuffle=True)


def epochs_of(setting: Recipe, parts: Parts, outputs: int, epochs: int, *, tuned: bool) -> Iterator[tuple[float, nn.Module]]:
    """Train one network; the validation loss (RMSE or log loss) after every epoch."""
    x, y, x_valid, y_valid = parts
    values = setting.effective()
    model = build(Shape.of(values, tuple(x.shape[1:]), outputs), dropout_of(values))
    decay, l1 = setting.number("weight_decay"), setting.number("l1")
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.number("lr"), weight_decay=decay, fused=tuned or None)
    cosine = setting.word("lr_schedule") == "cosine"
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: 0.5 * (1.0 + math.cos(math.pi * epoch / epochs)) if cosine else 1.0
    )
    weights = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    regression = y.is_floating_point()
    loss_of: Callable[[Tensor, Tensor], Tensor] = nn.MSELoss() if regression else nn.CrossEntropyLoss()
    for _ in range(epochs):
        model.train()
        for features, target in batches(x, y, setting.integer("batch_size"), tuned=tuned):
            out = model(features)
            loss = loss_of(out.squeeze(1) if regression else out, target)
            if l1:
                loss = loss + l1 * torch.stack([w.abs().sum() for w in weights]).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            out = model(x_valid)
            yield loss_of(out.squeeze(1) if regression else out, y_valid).item(), model


def objective(name: str, *, tuned: bool) -> Callable[[optuna.Trial], float]:
    """With patience, keeping the best network as one does."""
    spec = spec_of(name)
    parts, outputs = parts_of(name, spec)
    assert spec.early_stopping is not None
    patience = spec.early_stopping.patience

    def train(trial: optuna.Trial) -> float:
        params, _ = walked(spec, trial._suggest)
        best, since, kept = math.inf, 0, None
        for epoch, (loss, model) in enumerate(
            epochs_of(recipe(spec, params), parts, outputs, spec.budget.epochs, tuned=tuned)
        ):
            if loss < best:
                best, since, kept = loss, 0, copy.deepcopy(model.state_dict())
            else:
                since += 1
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
            if since >= patience:
                break
        del kept
        return best

    return train


def one_process(given: argparse.Namespace) -> None:
    """Its share of the trials, on the study that is at the URL."""
    if given.tuned:
        torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rule = spec_of(given.dataset).pruner
    assert isinstance(rule, MedianPruner)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=rule.startup_trials, n_warmup_steps=rule.warmup_epochs)
    study = optuna.load_study(study_name="script", storage=given.url, pruner=pruner)
    study.optimize(objective(given.dataset, tuned=given.tuned), n_trials=given.trials)


def run(dataset: str, trials: int, processes: int, *, tuned: bool) -> dict[str, Any]:
    """All processes at once; the rate without their start."""
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{Path(scratch)}/study.db"
        study = optuna.create_study(study_name="script", storage=url, direction="minimize")
        command = [sys.executable, "-m", "tests.benchmarks.default_study", dataset, "--url", url]
        command += ["--trials", str(max(1, trials // processes)), *(["--tuned"] if tuned else [])]
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, int(usable_cores()) // processes))}
        running = [subprocess.Popen(command, env=environment, cwd=ROOT) for _ in range(processes)]
        codes = [process.wait() for process in running]
        if any(codes):
            raise RuntimeError("a process of the script failed")
        return measured_study(study)


def main() -> None:
    """Run it alone, or one process of it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.default_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=TASKS)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--processes", type=int, default=processes_of())
    parser.add_argument("--url", help="be one process, on this database")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.url:
        one_process(given)
    else:
        figures = run(given.dataset, given.trials, given.processes, tuned=given.tuned)
        sys.stdout.write(f"{json.dumps(figures)}\n")


if __name__ == "__main__":
    main()
