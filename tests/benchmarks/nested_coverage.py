"""Do 95 % intervals of nested validation cover the truth? A cheap procedure on synthetic data, of which more can be drawn.

    python -m tests.benchmarks.nested_coverage [--studies 400]

The procedure is ridge regression whose penalty five inner folds choose; beside it least squares, as the unregularized
network. What an interval claims to cover is the expected score of the procedure on further rows, over training rows too:
a mean over all studies, each of which scores the winner of its first outer fold on `POPULATION` further rows. The scores and
intervals are the service's own (`workers.scoring`, `workers.answer.intervals`), with its wider jackknife and without.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.benchmarks.rounds import Options, Rounds
from workers.answer.intervals import difference, interval
from workers.answer.nested import widening
from workers.scoring.scores import Scores, exact, score

CASES = ((60, 20, 5), (120, 20, 5), (120, 60, 5), (120, 20, 10))
"""Rows, features and outer folds."""
INNER = 5
POPULATION = 4_000
PENALTIES = 10.0 ** np.linspace(-3.0, 3.0, 13)
SMALL = 1e-6

Array = NDArray[np.float64]


def rows_of(n: int, features: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Rows of a linear function of five of the features, with noise of its own size."""
    x = rng.normal(size=(n, features))
    return x, x[:, :5].sum(1) / math.sqrt(5.0) + rng.normal(size=n)


def predictions(x: Array, y: Array, new: Array) -> Array:
    """(penalties, r) predictions of ridge regressions for new rows; the last is of least squares."""
    mean, level = x.mean(0), y.mean()
    u, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    shrunk = s / (s**2 + np.append(PENALTIES, SMALL)[:, None]) * (u.T @ (y - level))
    found: Array = shrunk @ (vt @ (new - mean).T) + level
    return found


def procedure(x: Array, y: Array, new: Array, rng: np.random.Generator) -> Array:
    """(2, r) predictions for new rows: with the penalty that the inner folds choose, and without any."""
    fold, errors = rng.permutation(len(y)) % INNER, np.zeros(len(PENALTIES))
    for each in range(INNER):
        inside = fold == each
        out = predictions(x[~inside], y[~inside], x[inside])[:-1]
        errors += ((out - y[inside]) ** 2).sum(1)
    found: Array = predictions(x, y, new)[[int(errors.argmin()), -1]]
    return found


def study(case: tuple[int, int, int], seed: int) -> dict[str, Any]:
    """One study: its two intervals of score and of gain, and the truth of its first outer fold's winner."""
    (n, features, outer), rng = case, np.random.default_rng([*case, seed])
    x, y = rows_of(n, features, rng)
    fold, out = rng.permutation(n) % outer, np.zeros((2, n))
    truth: list[float] = []
    for each in range(outer):
        inside = fold == each
        more, target = rows_of(POPULATION if each == 0 else 0, features, rng)
        found = procedure(x[~inside], y[~inside], np.concatenate([x[inside], more]), rng)
        out[:, inside] = found[:, : inside.sum()]
        if each == 0:
            truth = [float(one) for one in exact("regression", "rmse", _outputs(found[:, inside.sum() :]), _tensor(target))]
    scores = score("regression", "rmse", _outputs(out), _tensor(y))
    ends: dict[str, Any] = {}
    for name, factor in (("plain", 1.0), ("wide", widening(outer))):
        chosen, plain = (Scores(one.exact, one.jumps * factor, one.rows) for one in (scores.only([0]), scores.only([1])))
        own, gain = interval(chosen, "rmse"), difference(chosen, plain, 1.0)
        ends[name] = [own.low, own.high, gain.low, gain.high]
    return {"truth": truth, **ends}


def _tensor(values: Array) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _outputs(values: Array) -> torch.Tensor:
    return _tensor(values)[:, :, None]


def studies(case: tuple[int, int, int], number: int) -> dict[str, Any]:
    """The shares of so many studies whose intervals cover the truth."""
    found = [study(case, seed) for seed in range(number)]
    winner, plain = np.mean([each["truth"] for each in found], axis=0)
    shares: dict[str, Any] = dict(zip(("rows", "features", "outer"), case, strict=True))
    shares |= {"studies": number, "rmse": round(float(winner), 4), "gain": round(float(plain - winner), 4)}
    for name in ("plain", "wide"):
        low, high, gain_low, gain_high = np.array([each[name] for each in found]).T
        shares[f"{name}_covers"] = float(np.mean((low <= winner) & (winner <= high)))
        shares[f"{name}_covers_gain"] = float(np.mean((gain_low <= plain - winner) & (plain - winner <= gain_high)))
    return shares


def main() -> None:
    """All cases."""
    options = Options("nested_coverage", __doc__, quick={"studies": 4})
    options.add_argument("--studies", type=int, default=400, help="of each case")
    given = options.given()
    rounds = Rounds("nested_coverage", given, count="studies", population=POPULATION)
    rounds.conclude([rounds.once(" ".join(map(str, case)), partial(studies, case, given.studies)) for case in CASES])


if __name__ == "__main__":
    main()
