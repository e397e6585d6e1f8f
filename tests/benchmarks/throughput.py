"""Trial-epochs per second of whole searches: ours beside what people run today, or beside another checkout of ours.

    python -m tests.benchmarks.throughput [--width 64] [--rounds 3] [--large] [--halving] [--without ray]
    python -m tests.benchmarks.throughput --default diabetes [--preset tabular] [--rounds 3] [--loaded]
    python -m tests.benchmarks.throughput --against CHECKOUT [--studies width_64 width_256 diabetes] [--rounds 3]

The first compares with the peers of `peers`, and with JAX (`vmapped`), in turn: no pruning, or successive halving on all
sides (then without joblib, Ray and JAX, which have none of that kind); TPE on both Optuna sides, random search for the
others. The peers run fewer trials, for their rate does not depend on it. The second submits nothing but the name of a data
set, or with the preset `default` and a holdout, and compares with scripts of the same search (`default_study`).
``--loaded``: with a busy process for every core beside all sides. The third runs the same studies by the code of this
checkout and of another one; its ratios are those of this checkout's rates to the other's.

Ours is a service with one worker and an SQLite file, both new in every run (see `checkout`), with database, sampler and
every evaluation; finalizing is left out. Each round begins with empty caches of calibration and compiler ("cold"); "warm" is
the same search again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.checkout import beside, check, compared, search
from tests.benchmarks.default_study import STUDIES as PRESETS
from tests.benchmarks.default_study import TASKS
from tests.benchmarks.default_study import run as run_default
from tests.benchmarks.machine import commit
from tests.benchmarks.peers import BATCH, NAMES, RANGES, add_search_options, processes_of, rows, run_peer
from tests.benchmarks.rounds import ROOT, Options, Rounds, in_turn, ratio, require, spread

STUDIES = ("width_64", "width_256", "diabetes")
"""What two checkouts are compared by: the peers' search at two widths, and a study with all defaults."""


def study_of(given: argparse.Namespace, width: int, folder: Path) -> dict[str, Any]:
    """The peers' search, on the same number of training rows: the test part is the smallest the spec allows."""
    file = folder / "rows.npz"
    if not file.exists():
        x, y = rows(given.large)
        np.savez(file, X=x, y=y)
    space: dict[str, Any] = {name: {"low": low, "high": high, "log": log} for name, (low, high, log) in RANGES.items()}
    halving = {"name": "successive_halving", "min_epochs": 2, "reduction_factor": 3}
    return {
        "data": {"path": str(file)},
        "model": {"widths": [width, width]},
        "space": {"preset": "off", "normalization": "layer", "batch_size": BATCH, **space},
        "pruner": halving if given.halving else "none",
        "early_stopping": "off",
        "budget": {"trials": given.trials, "epochs": given.epochs},
        "validation": {"test_fraction": 0.0012, "valid_fraction": 0.2},
    }


def contest(given: argparse.Namespace, number: int) -> dict[str, dict[str, Any]]:
    """One round of ours and the peers."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        study = study_of(given, given.width, folder)
        ours = partial(search, ROOT, study, folder / "caches", folder)
        cold = ours()
        trials = dict.fromkeys(NAMES, given.script_trials) | {"ray_tune": given.ray_trials}
        left_out = {"joblib_loop": given.halving, "ray_tune": not given.ray}
        peers = [name for name in NAMES if not left_out.get(name)]
        sides = {name: partial(run_peer, name, given, trials[name]) for name in peers}
        if "jax" not in given.without and not given.halving:
            sides["jax_vmap"] = partial(run_vmapped, given)
        return {"ours_cold": cold, **in_turn({"ours": ours, **sides}, number)}


def run_vmapped(given: argparse.Namespace) -> dict[str, Any]:
    """`vmapped` in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.vmapped", f"--width={given.width}", f"--epochs={given.epochs}"]
    command += ["--large"] if given.large else []
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def default_contest(given: argparse.Namespace, number: int) -> dict[str, dict[str, Any]]:
    """One round of a study that says little more than its data and of scripts that search the same."""
    study: dict[str, Any] = {"data": {"dataset": given.default}, **PRESETS[given.preset]}
    if given.quick:
        study["budget"] = {"trials": given.trials, "epochs": given.epochs}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours = partial(search, ROOT, study, folder / "caches", folder)
        cold = ours()
        script = partial(run_default, given.default, given.script_trials, given.processes, preset=given.preset)
        sides = {"optuna_script": partial(script, tuned=False), "hand_tuned_script": partial(script, tuned=True)}
        return {"ours_cold": cold, **in_turn({"ours": ours, **sides}, number)}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that only compute, while the block runs."""
    command = [sys.executable, "-c", "while True: sum(range(10_000))"]
    running = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def against_peers(given: argparse.Namespace) -> None:
    """Ours and the peers in turn."""
    given.ray = not given.halving and "ray" not in given.without and given.default is None
    jax = not given.halving and "jax" not in given.without and given.default is None
    require(["ray"] * given.ray + ["jax"] * jax)
    name = f"throughput_width_{given.width}{'_50k' * given.large}{'_halving' * given.halving}"
    if given.default is not None:
        name = f"throughput_{given.preset}_{given.default}"
    name += "_loaded" * given.loaded + "_cuda" * torch.cuda.is_available()
    rounds = Rounds(name, given, batch=BATCH)
    one = contest if given.default is None else default_contest
    with busy(processes_of() if given.loaded else 0):
        done = [rounds.once(f"{number}", partial(one, given, number)) for number in range(given.rounds)]
    rates = [{side: figures["rate"] for side, figures in each.items()} for each in done]
    occupancy = [
        each["ours"]["occupancy"] for each in done if "occupancy" in each["ours"]
    ]  # of searches of seconds at least
    rounds.conclude(
        {
            "ours_over": {side: ratio(rates, "ours", side) for side in rates[0] if side != "ours"},
            "ours_cold_over": {side: ratio(rates, "ours_cold", side) for side in rates[0] if not side.startswith("ours")},
            "trial_epochs_per_second": {side: spread(each[side] for each in rates) for side in rates[0]},
            **({"occupancy": spread(occupancy)} if occupancy else {}),
        }
    )


def duel(given: argparse.Namespace, name: str, number: int) -> dict[str, dict[str, Any]]:
    """One round of this checkout and the other with one study; with empty caches, then with those that this filled."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if name == "diabetes":
            study = {"data": {"dataset": "diabetes"}, **({"budget": {"trials": given.trials}} if given.quick else {})}
        else:
            study = study_of(given, int(name.removeprefix("width_")), folder)
        return beside(given.against, study, folder, number)


def against_checkout(given: argparse.Namespace) -> None:
    """Two checkouts in turn."""
    for path in (ROOT, given.against):
        check(path)
    commits = {"this": commit(ROOT), "other": commit(given.against)}
    name = "throughput_against" + "_cuda" * torch.cuda.is_available()
    rounds = Rounds(name, given, batch=BATCH, commits=commits)
    done: dict[str, list[dict[str, Any]]] = {study: [] for study in given.studies}
    for number in range(given.rounds):
        for study, found in done.items():
            found.append(rounds.once(f"{study} {number}", partial(duel, given, study, number)))
    rounds.conclude({study: compared(found, "rate", "trial_epochs_per_second") for study, found in done.items()})


def main() -> None:
    """One of the two comparisons."""
    small = {"width": 16, "epochs": 2, "trials": 12, "script_trials": 2, "ray_trials": 2, "rounds": 1}
    options = Options("throughput", __doc__, quick=small)
    add_search_options(options)
    options.add_argument("--trials", type=int, default=400, help="of our study")
    options.add_argument("--script-trials", type=int, default=40, help="of each Optuna script")
    options.add_argument("--ray-trials", type=int, default=16, help="of Ray Tune")
    options.add_argument("--rounds", type=int, default=3, help="of all of them in turn")
    options.add_argument("--without", action="append", choices=["ray", "jax"], default=[], help="leave this peer out")
    options.add_argument("--default", choices=TASKS, help="a study on this data set, with a preset")
    options.add_argument("--preset", choices=PRESETS, default="default", help="of it; `tabular` is what nobody has to name")
    options.add_argument("--loaded", action="store_true", help="a busy process for every core beside all sides")
    options.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with this checkout instead of the peers")
    options.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES), help="that two checkouts search")
    given = options.given()
    of_one_only = (
        ("studies",)
        if given.against is None
        else ("width", "processes", "script_trials", "ray_trials", "without", "default", "loaded")
    )
    for name in of_one_only:  # what has no meaning here is not asked
        delattr(given, name)
    if given.against is None:
        against_peers(given)
    else:
        given.against = given.against.resolve()
        against_checkout(given)


if __name__ == "__main__":
    main()
