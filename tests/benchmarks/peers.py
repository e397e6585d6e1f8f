"""The search that `throughput` measures, as people write it today: with Optuna, with Optuna by an expert, with joblib, with
Ray Tune.

    python -m tests.benchmarks.peers optuna_script [--width 64] [--epochs 20] [--trials 40] [--processes 2]
    python -m tests.benchmarks.peers hand_tuned_script [--large] [--halving]
    python -m tests.benchmarks.peers joblib_loop [--large]
    python -m tests.benchmarks.peers ray_tune [--large]

Runs one of them alone and prints its rate; `throughput` runs them in turn with ours, and keeps the rounds. One study on a
classification set: an MLP with layer normalization and AdamW; learning rate, L1, weight decay and dropout are searched.
Scripts run one process per core on SQLite. The hand-tuned loop in joblib's processes, one per core, and Ray, which runs a
trial per core (`pip install 'ray[tune]'`), search at random and without a database.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import numpy as np
import optuna
import torch
from sklearn.datasets import load_digits, make_classification
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.benchmarks.rounds import ROOT, require
from workers.planning.cores import usable_cores

BATCH = 128
NAMES = ("optuna_script", "hand_tuned_script", "joblib_loop", "ray_tune")
RANGES = {
    "lr": (3e-4, 1e-2, True),
    "l1": (1e-6, 1e-2, True),
    "weight_decay": (1e-2, 30.0, True),
    "dropout": (0.0, 0.7, False),
}


def rows(large: bool) -> tuple[np.ndarray, np.ndarray]:
    """Digits (1797 x 64), or 62 500 made-up rows of the same width, of which 50 000 are trained on."""
    if large:
        x, y = make_classification(62_500, 64, n_informative=32, n_classes=10, class_sep=1.5, random_state=0)
        return x.astype(np.float32), y.astype(np.int64)
    x, y = load_digits(return_X_y=True)
    return ((x - 4.9) / 6.0).astype(np.float32), y.astype(np.int64)


def split(large: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four fifths to train on (1437 of digits), the rest to validate."""
    x, y = rows(large)
    order = np.random.default_rng(0).permutation(len(x))
    train = len(x) * 4 // 5
    features, target = torch.from_numpy(x[order]), torch.from_numpy(y[order])
    return features[:train], target[:train], features[train:], target[train:]


def network(width: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (64, width):
        layers += [nn.Linear(before, width), nn.LayerNorm(width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, 10))


Parts = tuple[Tensor, Tensor, Tensor, Tensor]


def epochs_of(setting: dict[str, float], data: Parts, width: int, epochs: int, *, tuned: bool) -> Iterator[float]:
    """Train one trial; the validation accuracy after every epoch.

    As an ordinary script does it, with a DataLoader; ``tuned``: index batches, the fused optimizer, data on the device.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x, y, x_valid, y_valid = (part.to(device) for part in data) if tuned else data
    model = network(width, setting["dropout"]).to(device)
    decay = setting["weight_decay"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting["lr"], weight_decay=decay, fused=tuned or None)
    weights = [p for p in model.parameters() if p.ndim == 2]
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)
    loss_of = nn.CrossEntropyLoss()
    for _ in range(epochs):
        model.train()
        for features, target in _index_batches(x, y) if tuned else loader:
            loss = loss_of(model(features.to(device)), target.to(device))
            loss = loss + setting["l1"] * torch.stack([w.abs().sum() for w in weights]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = model(x_valid.to(device)).argmax(1) == y_valid.to(device)
        yield right.float().mean().item()


def _index_batches(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for index in torch.randperm(len(x), device=x.device).split(BATCH):  # type: ignore[no-untyped-call]
        yield x[index], y[index]


def objective(data: Parts, width: int, epochs: int, *, tuned: bool) -> Callable[[optuna.Trial], float]:
    def train(trial: optuna.Trial) -> float:
        setting = {name: trial.suggest_float(name, low, high, log=log) for name, (low, high, log) in RANGES.items()}
        accuracy = 0.0
        for epoch, accuracy in enumerate(epochs_of(setting, data, width, epochs, tuned=tuned)):
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    return train


def script(given: argparse.Namespace) -> None:
    """One process of a script, on the study that is at its URL."""
    tuned = given.peer == "hand_tuned_script"
    if tuned:
        torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = (
        optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
        if given.halving
        else optuna.pruners.NopPruner()
    )
    study = optuna.load_study(study_name="script", storage=given.url, pruner=pruner)
    study.optimize(objective(split(given.large), given.width, given.epochs, tuned=tuned), n_trials=given.trials)


def run_script(given: argparse.Namespace) -> dict[str, Any]:
    """All processes of a script at once; the rate without their start."""
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{scratch}/study.db"
        study = optuna.create_study(study_name="script", storage=url, direction="maximize")
        command = [*command_of(given.peer, given, max(1, given.trials // given.processes)), "--url", url]
        # Processes that use every core each get in each other's way, tenfold; to be fair they share the cores.
        threads = str(max(1, int(usable_cores()) // given.processes))
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        running = [subprocess.Popen(command, env=environment, cwd=ROOT) for _ in range(given.processes)]
        codes = [process.wait() for process in running]
        if any(codes):
            raise RuntimeError(f"a process of {given.peer} failed")
        return measured_study(study)


def measured_study(study: optuna.Study) -> dict[str, Any]:
    """The rate of a script from its study, without the start of its processes."""
    ended = [trial for trial in study.trials if trial.datetime_complete and trial.datetime_start]
    start = min(trial.datetime_start for trial in ended if trial.datetime_start)
    end = max(trial.datetime_complete for trial in ended if trial.datetime_complete)
    return rate(sum(len(trial.intermediate_values) for trial in ended), len(ended), (end - start).total_seconds())


def run_joblib(given: argparse.Namespace) -> dict[str, Any]:
    """The hand-tuned loop on settings drawn at random, in joblib's processes; the rate without their start."""
    rng = np.random.default_rng(0)
    settings = [{name: _drawn(rng, *bounds) for name, bounds in RANGES.items()} for _ in range(given.trials)]
    with joblib.Parallel(n_jobs=given.processes) as pool:
        train = joblib.delayed(_trained)
        pool(train(settings[0], given.large, given.width, 1) for _ in range(given.processes))
        start = time.perf_counter()
        epochs = sum(pool(train(setting, given.large, given.width, given.epochs) for setting in settings))
        return rate(epochs, given.trials, time.perf_counter() - start)


def _drawn(rng: np.random.Generator, low: float, high: float, log: bool) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))) if log else rng.uniform(low, high))


def _trained(setting: dict[str, float], large: bool, width: int, epochs: int) -> int:
    """The number of epochs that one trial was trained."""
    torch.set_num_threads(1)
    return len(list(epochs_of(setting, split(large), width, epochs, tuned=True)))


def processes_of() -> int:
    """A process for every core."""
    return max(1, int(usable_cores()))


def run_ray(given: argparse.Namespace) -> dict[str, Any]:
    """Ray Tune with random search, a trial per core; the rate from `fit` to its return, without `ray.init`."""
    require(["ray"])
    import ray  # noqa: PLC0415  # a peer, installed only to be measured
    from ray import tune  # noqa: PLC0415

    def trainable(setting: dict[str, float]) -> None:
        torch.set_num_threads(1)
        for accuracy in epochs_of(setting, split(given.large), given.width, given.epochs, tuned=False):
            tune.report({"accuracy": accuracy})

    ray.init(num_cpus=given.processes, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    space = {
        name: tune.loguniform(low, high) if log else tune.uniform(low, high) for name, (low, high, log) in RANGES.items()
    }
    config = tune.TuneConfig(num_samples=given.trials, metric="accuracy", mode="max")
    with tempfile.TemporaryDirectory() as scratch:
        run = tune.RunConfig(storage_path=scratch, verbose=0)
        tuner = tune.Tuner(tune.with_resources(trainable, {"cpu": 1}), param_space=space, tune_config=config, run_config=run)
        start = time.perf_counter()
        results = tuner.fit()
        seconds = time.perf_counter() - start
    ray.shutdown()
    ended = [results[index].metrics or {} for index in range(len(results))]
    epochs = sum(int(metrics.get("training_iteration", 0)) for metrics in ended)
    return rate(epochs, len(results), seconds)


def rate(trial_epochs: int, trials: int, seconds: float) -> dict[str, Any]:
    """What is reported of every contestant."""
    return {"trials": trials, "trial_epochs": trial_epochs, "seconds": seconds, "rate": trial_epochs / seconds}


def command_of(peer: str, given: argparse.Namespace, trials: int) -> list[str]:
    """The command line that runs a peer with the search of ``given``."""
    command = [sys.executable, "-m", "tests.benchmarks.peers", peer, "--trials", str(trials)]
    command += [f"--{name}={getattr(given, name)}" for name in ("width", "epochs", "processes")]
    return command + [f"--{name}" for name in ("large", "halving") if getattr(given, name)]


def run_peer(peer: str, given: argparse.Namespace, trials: int) -> dict[str, Any]:
    """Run a peer in processes of its own.

    Raises:
        CalledProcessError: It failed; its messages are on the standard error.
    """
    done = subprocess.run(command_of(peer, given, trials), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """The options that describe the search, which all contestants share."""
    parser.add_argument("--width", type=int, default=64, help="of both hidden layers")
    parser.add_argument("--epochs", type=int, default=20, help="of a trial")
    parser.add_argument("--processes", type=int, default=processes_of(), help="of a peer")
    parser.add_argument("--large", action="store_true", help="50 000 training rows instead of 1437")
    parser.add_argument("--halving", action="store_true", help="successive halving instead of no pruning; not with Ray")


def main() -> None:
    """Run one peer, or one process of it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=NAMES)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--url", help="be one process of a script, on this database")
    add_search_options(parser)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.url:
        script(given)
    else:
        figures = {"ray_tune": run_ray, "joblib_loop": run_joblib}.get(given.peer, run_script)(given)
        sys.stdout.write(f"{json.dumps(figures)}\n")


if __name__ == "__main__":
    main()
