"""What finalizing costs beside the search: whole studies with all defaults, from empty caches to the answer.

    python tests/benchmarks/finalizing.py

Finalizing trains five finalists, the baselines and the winner's ablation over five seeds, scores them and computes the
importances. Its share is of the study's wall time, from the first trial to the answer.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import optuna

from service.datasets import BUILTIN
from service.spec import StudySpec
from tests.benchmarks.one_process import answer_of
from tests.benchmarks.report import save

DATASETS = ("breast_cancer", "diabetes", "digits")


def cost(name: str) -> dict[str, Any]:
    """Seconds of one study and of its finalizing."""
    spec = StudySpec.model_validate({"data": {"dataset": name}}).resolved(BUILTIN[name].task)
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
    """One study after the other."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    figures = {name: cost(name) for name in DATASETS}
    print(figures, save("finalizing", figures))  # noqa: T201


if __name__ == "__main__":
    main()
