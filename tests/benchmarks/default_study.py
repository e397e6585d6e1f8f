"""A study on a built-in data set as an Optuna script: the same network, space, folds, epochs, patience and pruner.

    python -m tests.benchmarks.default_study diabetes [--preset tabular] [--tuned] [--trials 40] [--processes 2]

Of the preset `default` with a holdout, or with ``--preset tabular`` of what is searched for somebody who only names the
data: five folds, a network for each, and after each epoch the mean of their losses. An ordinary script: modules, a
DataLoader, torch's AdamW, a report after every epoch to an SQLite file, a process per core. ``--tuned``: index batches, the
fused optimizer, one thread per process. The space is read from the resolved spec, so that it stays the one that is
searched. `throughput --default` runs it in turn with ours.
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
from workers.plain.network import Shape, build, initialize, lr_factors
from workers.plain.schedules import Schedule, strength
from workers.planning.cores import usable_cores

TASKS: dict[str, Literal["classification", "regression"]] = {
    "diabetes": "regression",
    "breast_cancer": "classification",
    "digits": "classification",
}
STUDY: Mapping[str, Any] = {"space": {"preset": "default"}, "validation": {"method": "holdout"}}
STUDIES: Mapping[str, Mapping[str, Any]] = {"default": STUDY, "tabular": {}}
"""By preset, what a study has beside its data."""
SEARCHED = {
    "default": frozenset({"l1", "weight_decay", "dropout", "input_dropout", "normalization", "lr", "lr_schedule"}),
    "tabular": frozenset({"l1", "weight_decay", "dropout", "feature_masking", "lr"}),
}
"""By preset, the settings that are searched, all of which the script knows; it refuses to run with others."""

Parts = tuple[Tensor, Tensor, Tensor, Tensor]


def spec_of(name: str, preset: str = "default") -> StudySpec:
    """The resolved study."""
    rows = load_table(DataSource(task=TASKS[name], name=name)).rows
    spec = StudySpec.model_validate({"data": {"dataset": name}, **STUDIES[preset]}).resolved(TASKS[name], rows)
    if searched(spec) != SEARCHED[preset]:
        raise RuntimeError(f"the preset {preset} searches {sorted(searched(spec))}, the script {sorted(SEARCHED[preset])}")
    return spec


def searched(spec: StudySpec) -> set[str]:
    """Settings of which more than one value is searched in some trial."""

    def corner(place: float) -> set[str]:
        return set(walked(spec, lambda _, kind: placed(kind, place))[0])

    names = corner(0.0) | corner(0.5) | corner(0.999)
    return {setting for setting in spec.domains if any(name == setting or name.startswith(f"{setting}.") for name in names)}


def parts_of(name: str, spec: StudySpec) -> tuple[list[Parts], int]:
    """Training and validation rows of each fold as the study prepares them, and the number of outputs."""
    table = load_table(DataSource(task=TASKS[name], name=name))
    split = make_split(table, spec.validation, spec.seed)
    folds = [prepare(table, split, fold) for fold in range(spec.validation.folds if spec.validation.cross_validated else 1)]
    outputs = int(folds[0].y_train.max()) + 1 if TASKS[name] == "classification" else 1
    arrays = [(fold.x_train, fold.y_train, fold.x_valid, fold.y_valid) for fold in folds]
    return [tuple(torch.from_numpy(each) for each in fold) for fold in arrays], outputs  # type: ignore[misc]


def batches(x: Tensor, y: Tensor, size: int, *, tuned: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch's."""
    if tuned:
        for index in torch.randperm(len(x)).split(size):  # type: ignore[no-untyped-call]
            yield x[index], y[index]
    else:
        yield from DataLoader(TensorDataset(x, y), batch_size=size, shuffle=True)


class Training:
    """One network on the rows of one fold."""

    def __init__(self, setting: Recipe, parts: Parts, outputs: int, epochs: int, *, tuned: bool) -> None:
        self.x, self.y, self.x_valid, self.y_valid = parts
        self.setting, self.values, self.epochs, self.tuned = setting, setting.effective(), epochs, tuned
        self.model = build(Shape.of(self.values, tuple(self.x.shape[1:]), outputs), dropout_of(self.values))
        initialize(self.model, self.values, 0)
        layers: list[Any] = [each for each in self.model.modules() if hasattr(each, "p")]
        self.dropouts = [(layer, float(layer.p)) for layer in layers]
        self.optimizer = self._optimizer()
        self.schedule = Schedule(self.values, epochs)
        self.weights = [parameter for parameter in self.model.parameters() if parameter.ndim == 2]
        self.loss: Callable[[Tensor, Tensor], Tensor]
        self.loss = nn.MSELoss() if self.y.is_floating_point() else nn.CrossEntropyLoss()

    def _optimizer(self) -> torch.optim.Optimizer:
        """AdamW, which shrinks weights only, at learning rates of their own where the network has some."""
        factors, decay = lr_factors(self.model), self.setting.number("weight_decay")
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            groups.setdefault((factors[name], parameter.ndim > 1), []).append(parameter)
        each = [
            {"params": own, "factor": factor, "weight_decay": decay * shrinks, "decay": decay * shrinks}
            for (factor, shrinks), own in groups.items()
        ]
        betas = (self.setting.number("adam_beta1"), self.setting.number("adam_beta2"))
        return torch.optim.AdamW(each, betas=betas, fused=self.tuned or None)

    def epoch(self, number: int) -> float:
        """Train for an epoch; the validation loss (mean squared error or log loss) after it."""
        rate = float(self.schedule.rates(number, 1)[0])
        shrinking = strength(self.values, "weight_decay_schedule", number, self.epochs)
        for group in self.optimizer.param_groups:
            group["lr"], group["weight_decay"] = rate * group["factor"], group["decay"] * shrinking
        for layer, share in self.dropouts:
            layer.p = share * strength(self.values, "dropout_schedule", number, self.epochs)
        l1, masked, size = (self.setting.number(name) for name in ("l1", "feature_masking", "batch_size"))
        self.model.train()
        for features, target in batches(self.x, self.y, int(size), tuned=self.tuned):
            shown = features * (torch.rand_like(features) >= masked) if masked else features
            loss = self._loss(shown, target)
            if l1:
                loss = loss + l1 * torch.stack([w.abs().sum() for w in self.weights]).sum()
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        self.model.eval()
        with torch.no_grad():
            return self._loss(self.x_valid, self.y_valid).item()

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        out = self.model(x)
        return self.loss(out.squeeze(1) if y.is_floating_point() else out, y)


def objective(name: str, preset: str, *, tuned: bool) -> Callable[[optuna.Trial], float]:
    """With patience, keeping the best networks as one does."""
    spec = spec_of(name, preset)
    folds, outputs = parts_of(name, spec)
    assert spec.early_stopping is not None
    patience = spec.early_stopping.patience

    def train(trial: optuna.Trial) -> float:
        params, _ = walked(spec, trial._suggest)
        best, since, kept = math.inf, 0, []
        setting, epochs = recipe(spec, params), spec.budget.epochs
        networks = [Training(setting, parts, outputs, epochs, tuned=tuned) for parts in folds]
        for epoch in range(epochs):
            loss = sum(network.epoch(epoch) for network in networks) / len(networks)
            if loss < best:
                best, since, kept = loss, 0, [copy.deepcopy(network.model.state_dict()) for network in networks]
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
    rule = spec_of(given.dataset, given.preset).pruner
    assert isinstance(rule, MedianPruner)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=rule.startup_trials, n_warmup_steps=rule.warmup_epochs)
    study = optuna.load_study(study_name="script", storage=given.url, pruner=pruner)
    study.optimize(objective(given.dataset, given.preset, tuned=given.tuned), n_trials=given.trials)


def run(dataset: str, trials: int, processes: int, *, preset: str = "default", tuned: bool) -> dict[str, Any]:
    """All processes at once; the rate without their start."""
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{Path(scratch)}/study.db"
        study = optuna.create_study(study_name="script", storage=url, direction="minimize")
        command = [sys.executable, "-m", "tests.benchmarks.default_study", dataset, "--preset", preset, "--url", url]
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
    parser.add_argument("--preset", choices=STUDIES, default="default")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--processes", type=int, default=processes_of())
    parser.add_argument("--url", help="be one process, on this database")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.url:
        one_process(given)
    else:
        figures = run(given.dataset, given.trials, given.processes, preset=given.preset, tuned=given.tuned)
        sys.stdout.write(f"{json.dumps(figures)}\n")


if __name__ == "__main__":
    main()
