"""What finalizing costs beside the search: whole studies with all defaults, from empty caches to the answer.

    python -m tests.benchmarks.finalizing [--rounds 3] [--trials 600]

Finalizing trains five finalists, the baselines and the winner's ablation over five seeds, scores them and computes the
importances. Its share is of the study's wall time, from the first trial to the answer.
"""

from __future__ import annotations

import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from service.datasets import BUILTIN
from service.spec import StudySpec
from tests.benchmarks.one_process import answer_of
from tests.benchmarks.rounds import Options, Rounds, spread

DATASETS = ("breast_cancer", "diabetes", "digits")


def cost(name: str, how: dict[str, Any]) -> dict[str, Any]:
    """Seconds of one study and of its finalizing."""
    spec = StudySpec.model_validate({"data": {"dataset": name}, **how}).resolved(BUILTIN[name].task)
    with tempfile.TemporaryDirectory() as home:
        result = answer_of(spec, Path(home))
    wall, finalizing = result["wall_seconds"], result["finalizing_seconds"]
    return {
        "trials": spec.budget.trials,
        "wall_seconds": wall,
        "finalizing_seconds": finalizing,
        "share": round(finalizing / wall, 3),
        "phases": result["phases"],
        "lane_epochs_of_the_search": result["trials"]["epochs"],
        "lane_epochs_of_finalizing": result["finalizing_epochs"],
    }


def main() -> None:
    """All data sets in turn, round by round."""
    options = Options("finalizing", __doc__, quick={"rounds": 1, "trials": 12})
    options.add_argument("--rounds", type=int, default=3, help="studies of each data set")
    options.add_argument("--trials", type=int, help="of a study, instead of the default budget")
    given = options.given()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    how = {"budget": {"trials": given.trials}} if given.trials else {}
    rounds = Rounds("finalizing", given)
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in DATASETS}
    for number in range(given.rounds):
        for name, studies in done.items():
            studies.append(rounds.once(f"{name} {number}", partial(cost, name, how)))
    measured = ("share", "wall_seconds", "finalizing_seconds")
    rounds.conclude(
        {name: {what: spread(each[what] for each in studies) for what in measured} for name, studies in done.items()}
    )


if __name__ == "__main__":
    main()
