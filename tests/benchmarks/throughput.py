"""Trial-epochs per second of a whole study, ours beside what people run today (see `peers`).

    python tests/benchmarks/throughput.py [--width 64] [--large] [--halving]

Ours is measured from submit to the last tell, with database, sampler and every evaluation: once with empty caches of
calibration and compiler, then warm, in turn with the scripts, for machines drift. No pruning, or successive halving on all
sides; TPE on both Optuna sides, random search for Ray. The peers run fewer trials, for their rate does not depend on it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from service.spec import StudySpec
from service.store import open_store
from tests.benchmarks.peers import BATCH, RANGES, rate, rows, run_ray, run_script
from tests.benchmarks.report import save
from workers.data import DataSource, load_table, make_split, prepare
from workers.planning.process import set_up
from workers.searching.checkpoints import Checkpoints
from workers.searching.session import Environment, Session
from workers.stack.device_data import DeviceData


def spec(arguments: argparse.Namespace, file: Path) -> StudySpec:
    """The peers' search, on the same number of training rows: the test part is the smallest the spec allows."""
    np.savez(file, X=(data := rows(arguments.large))[0], y=data[1])
    space: dict[str, Any] = {name: {"low": low, "high": high, "log": log} for name, (low, high, log) in RANGES.items()}
    halving = {"name": "successive_halving", "min_epochs": 2, "reduction_factor": 3}
    raw = {
        "data": {"path": str(file)},
        "model": {"widths": [arguments.width, arguments.width]},
        "space": {"preset": "off", "normalization": "layer", "batch_size": BATCH, **space},
        "pruner": halving if arguments.halving else "none",
        "early_stopping": "off",
        "budget": {"trials": arguments.trials, "epochs": arguments.epochs},
        "validation": {"test_fraction": 0.001, "valid_fraction": 0.2},
    }
    return StudySpec.model_validate(raw).resolved("classification")


def run_ours(arguments: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """The whole study in one worker session, from submit to the last tell."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        study_spec = spec(arguments, Path(scratch) / "rows.npz")
        store = open_store(f"sqlite:///{scratch}/regsearch.db", create=True)
        start = time.perf_counter()
        store.studies.submit(study_spec)
        table = load_table(DataSource(task="classification", path=Path(scratch) / "rows.npz", format="npz"))
        parts = make_split(table, study_spec.validation, study_spec.seed)
        data = DeviceData.of([prepare(table, parts, 0)], task="classification", outputs=10, device=device)
        lease = store.leases.claim("benchmark", 600)
        assert lease is not None
        checkpoints = Checkpoints(Path(scratch) / "checkpoints")
        session = Session(store, lease, study_spec, data, Environment(cache, 600, lambda: False, checkpoints))
        session.run()
        seconds = time.perf_counter() - start
        counts = store.studies.get(lease.study_id).counts
        store.close()
    return {
        **rate(session.lane_epochs, counts.finished, seconds),
        "train_rows": data.train_rows,
        "compiled_lanes": session.plan.compiled_lanes,
        "shares": session.shares(),
        "occupancy": round(session.occupancy, 3),
        "steady_occupancy": round(session.steady_occupancy, 3),
    }


def contest(arguments: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """All runs of all of them."""
    cold = run_ours(arguments, cache)
    ray = [] if arguments.halving else [run_ray(arguments, arguments.ray_trials)]
    plain, tuned, warm = [], [], []
    for _ in range(arguments.rounds):
        for processes in arguments.script_processes:
            plain.append(run_script(arguments, arguments.script_trials, tuned=False, processes=processes))
            tuned.append(run_script(arguments, arguments.script_trials, tuned=True, processes=processes))
        warm.append(run_ours(arguments, cache))
    return {"ours_cold": cold, "ray_tune": ray, "optuna_script": plain, "hand_tuned_script": tuned, "ours_warm": warm}


def main() -> None:
    """All of them in turn, in one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--script-trials", type=int, default=40, help="trials of each Optuna script")
    parser.add_argument("--ray-trials", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="of both scripts and ours, in turn; the medians count")
    parser.add_argument("--script-processes", type=int, nargs="+", default=[os.cpu_count() or 1])
    parser.add_argument("--large", action="store_true", help="50 000 training rows instead of 1437")
    parser.add_argument("--halving", action="store_true", help="successive halving instead of no pruning")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    set_up()
    figures: dict[str, Any] = {**vars(arguments), "batch": BATCH}
    with tempfile.TemporaryDirectory() as caches:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = caches
        figures |= contest(arguments, Path(caches))
    figures["ratios"] = {
        name: round(_rate(figures["ours_warm"]) / _rate(figures[name]), 1)
        for name in ("optuna_script", "hand_tuned_script", "ray_tune")
        if figures[name]
    }
    name = f"throughput_width_{arguments.width}{'_50k' * arguments.large}{'_halving' * arguments.halving}"
    if torch.cuda.is_available():
        name += "_cuda"
    print(figures, save(name, figures))  # noqa: T201


def _rate(runs: list[dict[str, Any]]) -> float:
    """The median of the rounds, with the best number of processes."""
    by_processes: dict[int, list[float]] = {}
    for run in runs:
        by_processes.setdefault(int(run.get("processes", 1)), []).append(float(run["rate"]))
    return max(statistics.median(rates) for rates in by_processes.values())


if __name__ == "__main__":
    main()
