"""Trial-epochs per second of a whole study on digits: ours, an ordinary Optuna script, and the same script hand-tuned.

    python tests/benchmarks/throughput.py [--width 64] [--trials 400] [--script-trials 40]

All search l1, weight decay, dropout and learning rate of an MLP with layer normalization and AdamW, 20 epochs, batch 128,
TPE, no pruning, from submit to the last tell; the scripts run one process per core on SQLite. Ours starts with its
compiler's disk cache as it is: run it twice for the warm figure.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from service.settings import Settings
from service.spec import StudySpec
from service.store import open_store
from tests.benchmarks.report import save
from workers.checkpoints import Checkpoints
from workers.data import DataSource, load_table, make_split, prepare
from workers.session import Environment, Session
from workers.stack.device import DeviceData

EPOCHS, BATCH = 20, 128


def split() -> tuple[torch.Tensor, ...]:
    """1437 training rows and 360 to validate on, scaled."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    features = torch.tensor((x[order] - 4.9) / 6.0, dtype=torch.float32)
    target = torch.tensor(y[order])
    return features[:1437], target[:1437], features[1437:], target[1437:]


def suggest(trial: optuna.Trial) -> dict[str, float]:
    return {
        "lr": trial.suggest_float("lr", 3e-4, 1e-2, log=True),
        "l1": trial.suggest_float("l1", 1e-6, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-2, 30, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
    }


def network(width: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (64, width):
        layers += [nn.Linear(before, width), nn.LayerNorm(width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def train(width: int, setting: dict[str, float], *, tuned: bool, trial: optuna.Trial) -> float:
    """One trial, as an ordinary script does it, or with index batches and a fused optimizer."""
    x, y, x_valid, y_valid = split()
    model = network(width, setting["dropout"])
    decay = setting["weight_decay"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting["lr"], weight_decay=decay, fused=tuned or None)
    weights = [p for p in model.parameters() if p.ndim == 2]
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)
    loss_of = nn.CrossEntropyLoss()
    accuracy = 0.0
    for epoch in range(EPOCHS):
        model.train()
        batches = ((x[i], y[i]) for i in torch.randperm(len(x)).split(BATCH)) if tuned else loader  # type: ignore[no-untyped-call]
        for features, target in batches:
            loss = loss_of(model(features), target)
            loss = loss + setting["l1"] * torch.stack([w.abs().sum() for w in weights]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(x_valid).argmax(1) == y_valid).float().mean().item()
        trial.report(accuracy, epoch)
    return accuracy


def script(url: str, width: int, trials: int, *, tuned: bool) -> None:
    """One process of the script."""
    if tuned:
        torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name="script", storage=url)
    study.optimize(lambda trial: train(width, suggest(trial), tuned=tuned, trial=trial), n_trials=trials)


def run_script(width: int, trials: int, *, tuned: bool) -> dict[str, Any]:
    """One process per core; the rate without the start of the processes."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{scratch}/study.db"
        study = optuna.create_study(study_name="script", storage=url, direction="maximize")
        command = [sys.executable, __file__, "--role", "tuned" if tuned else "plain", "--url", url, "--width", str(width)]
        each = trials // cores
        processes = [subprocess.Popen([*command, "--trials", str(each)]) for _ in range(cores)]
        for process in processes:
            process.wait()
        finished = [trial for trial in study.trials if trial.datetime_complete and trial.datetime_start]
        start = min(trial.datetime_start for trial in finished if trial.datetime_start)
        end = max(trial.datetime_complete for trial in finished if trial.datetime_complete)
    seconds = (end - start).total_seconds()
    return {"trials": len(finished), "seconds": round(seconds, 1), "rate": round(len(finished) * EPOCHS / seconds, 1)}


def run_ours(width: int, trials: int) -> dict[str, Any]:
    """The whole study in one worker session, from submit to the last tell."""
    space = {
        "preset": "off",
        "normalization": "layer",
        "lr": {"low": 3e-4, "high": 1e-2, "log": True},
        "l1": {"low": 1e-6, "high": 1e-2, "log": True},
        "weight_decay": {"low": 1e-2, "high": 30, "log": True},
        "dropout": {"low": 0.0, "high": 0.7},
    }
    raw = {"data": {"dataset": "digits"}, "model": {"widths": [width, width]}, "space": space, "pruner": "none"}
    raw |= {"early_stopping": "off", "budget": {"trials": trials, "epochs": EPOCHS}}
    # The same 1437 training rows as the scripts: the test part is the smallest the spec allows.
    raw |= {"validation": {"test_fraction": 0.001, "valid_fraction": 0.2}}
    spec = StudySpec.model_validate(raw).resolved("classification")
    with tempfile.TemporaryDirectory() as scratch:
        store = open_store(f"sqlite:///{scratch}/regsearch.db", create=True)
        start = time.perf_counter()
        store.studies.submit(spec)
        table = load_table(DataSource(task="classification", name="digits"))
        parts = make_split(table, spec.validation, spec.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        data = DeviceData.of([prepare(table, parts, 0)], task="classification", outputs=10, device=device)
        lease = store.leases.claim("benchmark", 600)
        assert lease is not None
        checkpoints = Checkpoints(Path(scratch) / "checkpoints")
        session = Session(store, lease, spec, data, Environment(Settings().cache, 600, lambda: False, checkpoints))
        session.run()
        seconds = time.perf_counter() - start
        counts = store.studies.get(lease.study_id).counts
        store.close()
    return {
        "trials": counts.finished,
        "train_rows": data.train_rows,
        "seconds": round(seconds, 1),
        "rate": round(counts.finished * EPOCHS / seconds, 1),
        "compiled_lanes": session._fixed_lanes,
        "shares": session.timer.shares(),
        "occupancy": round(session.occupancy, 3),
    }


def main() -> None:
    """The three in turn, in one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--role", choices=("plain", "tuned"))
    parser.add_argument("--url")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--script-trials", type=int, default=40)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if arguments.role:
        script(arguments.url, arguments.width, arguments.trials, tuned=arguments.role == "tuned")
        return
    figures: dict[str, Any] = {"width": arguments.width, "epochs": EPOCHS, "batch": BATCH}
    figures["ours_first"] = run_ours(arguments.width, arguments.trials)
    figures["optuna_script"] = run_script(arguments.width, arguments.script_trials, tuned=False)
    figures["hand_tuned_script"] = run_script(arguments.width, arguments.script_trials, tuned=True)
    figures["ours_warm"] = run_ours(arguments.width, arguments.trials)
    for name in ("optuna_script", "hand_tuned_script"):
        figures[f"ratio_to_{name}"] = round(figures["ours_warm"]["rate"] / figures[name]["rate"], 1)
    print(figures, save(f"throughput_width_{arguments.width}", figures))  # noqa: T201


if __name__ == "__main__":
    main()
