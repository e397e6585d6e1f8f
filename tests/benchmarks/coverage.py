"""Do 95 % intervals cover the truth? Whole small studies on synthetic data, of which more can be drawn than was studied.

    python -m tests.benchmarks.coverage [--studies 200]

What an interval claims to cover is the expected score of *a network trained by the winning recipe on this study's training
part*, over further rows of the population and further seeds. Here it is known: the winner's recipe is trained with
`TRUTH_SEEDS` seeds that the study did not use, and scored on `POPULATION` rows that it did not see. Beside the stated
interval: its paired difference to the unregularized network, the plain two-level percentile bootstrap (seeds and rows
drawn with replacement), and how far the search's best validation score lies from the truth of its own setting.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from service.result import Setting
from service.search import Search, recipe
from service.spec import StudySpec
from service.store.records import TrialRecord
from tests.benchmarks.rounds import Options, Rounds
from workers.answer.candidates import Candidate
from workers.answer.finalizer import Finalizer
from workers.answer.networks import Gauge, ScoredRows, test_rows
from workers.answer.training import Trainer
from workers.data import RawTable, make_split, prepare
from workers.data.prepare import features, targets
from workers.seeds import trial_seeds
from workers.stack.device_data import DeviceData
from workers.stack.run import Protocol, Run
from workers.stack.runner import StackRunner
from workers.stack.stack import StackKey
from workers.study_data import Prepared

ROWS, FEATURES = 240, 6
POPULATION = 8_000
TRUTH_SEEDS = 40
RESAMPLES = 100


def table(task: str, rows: int, rng: np.random.Generator) -> RawTable:
    """Rows of a noisy nonlinear function; half of the features matter."""
    x = rng.normal(size=(rows, FEATURES))
    signal = np.sin(2.0 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * x[:, 1]
    noisy = signal + rng.normal(size=rows)
    target: NDArray[Any] = noisy if task == "regression" else (noisy > 0.3).astype(np.int64)
    frame = pd.DataFrame(x.astype(np.float32), columns=[f"x{index}" for index in range(FEATURES)])
    labels = ("no", "yes") if task == "classification" else ()
    return RawTable(frame, target, task, labels, row_hashes=np.arange(rows, dtype=np.uint64))


def spec_of(task: str, seed: int, trials: int = 18, epochs: int = 12) -> StudySpec:
    """A small study of a network that overfits."""
    raw = {
        "data": {"dataset": "diabetes"},
        "model": {"widths": [24]},
        "space": {
            "preset": "off",
            "lr": {"low": 0.003, "high": 0.1, "log": True},
            "dropout": {"low": 0.05, "high": 0.5, "off": True},
            "weight_decay": {"low": 0.1, "high": 30, "log": True, "off": True},
            "batch_size": 72,
        },
        "sampler": "random",
        "early_stopping": {"patience": 4},
        "budget": {"trials": trials, "epochs": epochs},
        "seed": seed,
    }
    return StudySpec.model_validate(raw).resolved(task)  # type: ignore[arg-type]  # one of the two words


def prepared(rows: RawTable, spec: StudySpec) -> Prepared:
    """As a worker prepares a study's data."""
    split = make_split(rows, spec.validation, spec.seed)
    folds = [prepare(rows, split, index) for index in range(len(split.folds))]
    device = DeviceData.of(folds, task=rows.task, outputs=rows.outputs, device=torch.device("cpu"))
    return Prepared(rows, split, folds, device)


def search(spec: StudySpec, data: Prepared) -> list[TrialRecord]:
    """All trials of a study, none pruned, best first."""
    assert spec.metric is not None, "a stored spec is resolved"
    drawn = [params for params, _ in Search(spec).propose(spec.budget.trials)]
    protocol = Protocol(spec.metric, spec.budget.epochs, spec.early_stopping)
    stacks: dict[StackKey, list[Run]] = {}
    for number, params in enumerate(drawn):
        run = Run(number, recipe(spec, params), trial_seeds(spec.seed, number, data.device.folds), protocol)
        stacks.setdefault(StackKey.of(run.recipe, data.device.inputs, data.device.outputs), []).append(run)
    for key, runs in stacks.items():
        runner = StackRunner(key, data.device)
        runner.add(runs)
        while runner.wanted_lanes:
            for run in runner.epoch():
                if run.ending:
                    runner.remove(run)
    done = [run for runs in stacks.values() for run in runs if run.ending in ("converged", "epochs")]
    done.sort(key=lambda run: (protocol.sign * run.best_value, run.key))
    return [_record(run, drawn[run.key]) for run in done]


def _record(run: Run, params: Any) -> TrialRecord:
    return TrialRecord(run.key, "complete", run.best_value, run.best_epoch, run.ending, run.epoch, 0, params, {}, None, None)


def truth(spec: StudySpec, data: Prepared, candidates: list[Candidate], population: ScoredRows) -> list[NDArray[np.float64]]:
    """(seeds,) scores of every setting on the population, trained with seeds of its own."""
    again = [Candidate(each.name, each.role, each.recipe, each.early_stopping) for each in candidates]
    Trainer(spec, data.device, lambda: None, range(1000, 1000 + TRUTH_SEEDS)).train(again)
    gauge = Gauge.of(spec, data)
    return [gauge.exact(gauge.outputs(each, population), population) for each in again]


def percentile(gauge: Gauge, candidate: Candidate, rows: ScoredRows, rng: np.random.Generator) -> tuple[float, float]:
    """The plain two-level bootstrap, to compare with."""
    out = gauge.outputs(candidate, rows)
    draws = []
    for _ in range(RESAMPLES):
        places = torch.from_numpy(rng.integers(len(rows.y), size=len(rows.y)))
        some = torch.from_numpy(rng.integers(len(out), size=len(out)))
        drawn = ScoredRows(rows.x, rows.y[places], rows.scale)
        draws.append(gauge.exact(out[some][:, places], drawn).mean())
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def study(task: str, seed: int) -> dict[str, float]:
    """One study: whether each interval covered, and how far the naive value was off."""
    rng = np.random.default_rng([seed, task == "regression"])
    spec = spec_of(task, seed)
    data = prepared(table(task, ROWS, rng), spec)
    trials = search(spec, data)
    finalizer = Finalizer(spec, data, lambda: None)
    result = finalizer.run(trials, lambda: None).findings
    more = table(task, POPULATION, rng)
    places, fold = np.arange(POPULATION), data.folds[0]
    x, y = features(more, places, fold.preprocessor), targets(more, places, fold.target)
    population = ScoredRows(torch.from_numpy(x), torch.from_numpy(y), fold.target.unit)
    winner, baseline = (_candidate(spec, trials, each) for each in (result.winner, result.baseline))
    first = _candidate(spec, trials, result.winner.model_copy(update={"name": "first", "trial": trials[0].number}))
    scores = truth(spec, data, [winner, baseline, first], population)
    exact, behind = float(scores[0].mean()), spec.sign * float(scores[1].mean() - scores[0].mean())
    test, gain = result.winner.test, result.gain
    assert gain is not None, "the baseline trains"
    return {
        "covered": float(test.low <= exact <= test.high),
        "below": float(exact < test.low),
        "width": test.high - test.low,
        "error": test.mean - exact,
        "standard_error": math.hypot(test.se_rows, test.se_seeds),
        "gain_covered": float(gain.low <= behind <= gain.high),
        "optimism": spec.sign * (float(scores[2].mean()) - (trials[0].value or math.nan)),
        "truth_error": float(scores[0].std(ddof=1) / math.sqrt(len(scores[0]))),
        **_percentile_covers(spec, data, winner, exact, rng),
    }


def _percentile_covers(
    spec: StudySpec, data: Prepared, winner: Candidate, exact: float, rng: np.random.Generator
) -> dict[str, float]:
    again = Candidate(winner.name, winner.role, winner.recipe)
    Trainer(spec, data.device, lambda: None).train([again])
    low, high = percentile(Gauge.of(spec, data), again, test_rows(data), rng)
    return {"percentile_covered": float(low <= exact <= high), "percentile_width": high - low}


def _candidate(spec: StudySpec, trials: list[TrialRecord], found: Setting) -> Candidate:
    """A setting of the result, not yet trained."""
    source = next((each for each in trials if each.number == found.trial), trials[0])
    setting = recipe(spec, source.params)
    if found.role == "baseline":
        return Candidate(found.name, "baseline", setting.unregularized(), early_stopping=False)
    return Candidate(found.name, "finalist", setting)


def summary(task: str, studies: list[dict[str, float]]) -> dict[str, Any]:
    """Shares covered with their standard errors, and the mean optimism with its interval."""
    n = len(studies)
    mean = {name: float(np.mean([each[name] for each in studies])) for name in studies[0]}
    errors = np.array([each["optimism"] for each in studies])
    half = 1.96 * float(errors.std(ddof=1)) / math.sqrt(n)
    found: dict[str, Any] = {"task": task, "studies": n}
    for name in ("covered", "gain_covered", "percentile_covered"):
        found[name] = {"share": mean[name], "standard_error": math.sqrt(mean[name] * (1 - mean[name]) / n)}
    found |= {name: mean[name] for name in ("below", "width", "percentile_width", "truth_error")}
    found["error"] = {"mean": mean["error"], "std": float(np.std([each["error"] for each in studies], ddof=1))}
    found["standard_error"] = math.sqrt(float(np.mean([each["standard_error"] ** 2 for each in studies])))
    optimism = {"mean": mean["optimism"], "low": mean["optimism"] - half, "high": mean["optimism"] + half}
    return {**found, "optimism_of_best_validation_score": optimism}


def main() -> None:
    """Both tasks, a study of each in turn."""
    options = Options("coverage", __doc__, quick={"studies": 2})
    options.add_argument("--studies", type=int, default=200, help="of each task")
    given = options.given()
    rounds = Rounds("coverage", given, count="studies", rows=ROWS, population=POPULATION, truth_seeds=TRUTH_SEEDS)
    done: dict[str, list[dict[str, float]]] = {"regression": [], "classification": []}
    for seed in range(given.studies):
        for task, studies in done.items():
            studies.append(rounds.once(f"{task} {seed}", partial(study, task, seed)))
    rounds.conclude([summary(task, studies) for task, studies in done.items()])


if __name__ == "__main__":
    main()
