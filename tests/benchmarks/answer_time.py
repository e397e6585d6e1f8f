"""How long does it take from the submit to the answer with all defaults? This checkout beside another one.

    python -m tests.benchmarks.answer_time CHECKOUT [--rounds 3] [--sizes 442 1797 20000] [--trials N]

The studies name nothing but their data: `diabetes` (442 rows), `digits` (1797), or a table that scikit-learn's
`make_classification` draws, of as many rows as asked, 20 columns, and five classes. Each is run by a service and a worker of
each checkout's own code, with empty caches, then with those that this has filled, as it is when a study is the first of its
shape and when it is not.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.datasets import make_classification

from tests.benchmarks.checkout import UNANSWERED, beside, check, compared
from tests.benchmarks.machine import commit
from tests.benchmarks.rounds import ROOT, Options, Rounds

BUILTIN = {442: "diabetes", 1797: "digits"}


def study_of(rows: int, folder: Path) -> dict[str, Any]:
    """A study of so many rows; those that are not built in are written to ``folder``."""
    if rows in BUILTIN:
        return {"data": {"dataset": BUILTIN[rows]}}
    x, y = make_classification(rows, 20, n_informative=8, n_classes=5, random_state=0)
    path = folder / "table.csv"
    pd.DataFrame(x).assign(label=y).to_csv(path, index=False)
    return {"data": {"path": str(path), "target": "label"}, "task": "classification"}


def duel(other: Path, trials: int | None, rows: int, number: int) -> dict[str, Any]:
    """One round: both checkouts with empty caches, then with those that this filled."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        study = {**study_of(rows, folder), **({"budget": {"trials": trials}} if trials else {})}
        return beside(other, study, folder, number, UNANSWERED)


def main() -> None:
    """All sizes in turn, round by round."""
    options = Options("answer_time", __doc__, quick={"rounds": 1, "sizes": [442], "trials": 3})
    options.add_argument("checkout", type=Path, metavar="CHECKOUT", help="the other one")
    options.add_argument("--rounds", type=int, default=3, help="of all sizes in turn")
    options.add_argument("--sizes", type=int, nargs="+", default=[442, 1797, 20_000], help="numbers of rows")
    options.add_argument("--trials", type=int, help="of each study; each checkout's own default if omitted")
    given = options.given()
    other = given.checkout.resolve()
    for path in (ROOT, other):
        check(path)
    rounds = Rounds("answer_time", given, commits={"this": commit(ROOT), "other": commit(other)})
    done: dict[int, list[dict[str, Any]]] = {rows: [] for rows in given.sizes}
    for number in range(given.rounds):
        for rows, found in done.items():
            found.append(rounds.once(f"{rows} {number}", partial(duel, other, given.trials, rows, number)))
    rounds.conclude({f"{rows}": compared(found, "answer_seconds", "seconds") for rows, found in done.items()})


if __name__ == "__main__":
    main()
