"""Trial-epochs per second of a whole search by one worker on 1, 2, 4, … cores.

    python -m tests.benchmarks.cores [--data diabetes] [--cores 1 2 4 8 16] [--rounds 3] [--trials 300]

The study has the preset `default` on a built-in data set, a service and a worker of its own, and an SQLite file. The worker
is confined to so many cores by its affinity, as `taskset` and many schedulers do, and finds that out by itself. A first
search with each number fills the caches, for the programs differ; then the numbers take turns. ``over_one`` is the rate
over that with one core within a round.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.checkout import search
from tests.benchmarks.default_study import STUDY, TASKS
from tests.benchmarks.rounds import ROOT, Options, Rounds, in_turn, ratio, spread
from workers.planning.cores import usable_cores


def numbers() -> list[int]:
    """The powers of two up to the usable cores."""
    most = int(usable_cores())
    return [2**power for power in range(most.bit_length()) if 2**power <= most]


def measure(study: dict[str, Any], cores: list[int], number: int) -> dict[str, dict[str, Any]]:
    """One round."""
    with tempfile.TemporaryDirectory() as scratch:
        caches = Path(scratch)
        usable = sorted(os.sched_getaffinity(0))
        sides = {f"{count}": partial(search, ROOT, study, caches, worker_cores=usable[:count]) for count in cores}
        for fill in sides.values():
            fill()
        return in_turn(sides, number)


def main() -> None:
    """Round by round."""
    options = Options("cores", __doc__, quick={"rounds": 1, "trials": 12, "cores": [1]})
    options.add_argument("--data", choices=TASKS, default="diabetes", help="the built-in data set")
    options.add_argument("--cores", nargs="+", type=int, default=numbers(), help="numbers of cores")
    options.add_argument("--trials", type=int, default=300, help="of each search")
    options.add_argument("--rounds", type=int, default=3, help="of all of them in turn")
    given = options.given()
    rounds = Rounds(f"cores_{given.data}", given)
    study = {"data": {"dataset": given.data}, **STUDY, "budget": {"trials": given.trials}}
    done = [rounds.once(f"{number}", partial(measure, study, given.cores, number)) for number in range(given.rounds)]
    rates = [{side: figures["rate"] for side, figures in each.items()} for each in done]
    first = str(min(given.cores))
    rounds.conclude(
        {
            "over_one": {side: ratio(rates, side, first) for side in rates[0] if side != first},
            "trial_epochs_per_second": {side: spread(each[side] for each in rates) for side in rates[0]},
        }
    )


if __name__ == "__main__":
    main()
