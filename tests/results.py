"""Results of finished studies, made up: all that one may hold, for whoever reads one."""

from __future__ import annotations

from typing import Any

from service.result import (
    Ablation,
    Curves,
    Delivered,
    Effect,
    Ensemble,
    Gap,
    Importance,
    Interval,
    Member,
    Pictures,
    Predictions,
    Provenance,
    RangeBin,
    Recommendation,
    Result,
    RowCounts,
    SearchedTrials,
    SearchPlan,
    Selection,
    Setting,
    Single,
    SparsityPoint,
    Spread,
    WeightStatistics,
    Winner,
)


def interval(mean: float, width: float = 1.0) -> Interval:
    return Interval(mean=mean, low=mean - width, high=mean + width, n=88, seeds=5, se_rows=0.4, se_seeds=0.3)


def spread(mean: float) -> Spread:
    return Spread(mean=mean, std=0.5, n=5)


def setting(name: str, score: float, **changes: Any) -> Setting:
    """A finalist; its score is 1 better on validation rows, and 9 better on training rows."""
    made = Setting(
        name=name,
        role="finalist",
        trial=None,
        recipe={"activation": "relu", "dropout": 0.25, "lr": 0.003, "optimizer": "adamw", "widths": (32.0, 16.0)},
        regularizers=("dropout",),
        train=spread(score - 9),
        valid=spread(score - 1),
        test=interval(score),
        gap=Gap(train_valid=8.0, valid_test=1.0, train_test=9.0),
        behind_winner=None,
        train_loss=spread(0.5),
        also={},
    )
    return made.model_copy(update=changes)


def winner(**changes: Any) -> Winner:
    return Winner.of(setting("trial 3", 50.0, trial=3, **changes))


def curves(level: float) -> Curves:
    epochs = list(range(1, 21))
    course = [level + 10.0 / epoch for epoch in epochs]
    return Curves.of(epochs, [5] * 20, 12.0, {"train_loss": course, "loss": course, "rmse": course})


def result(**changes: Any) -> Result:
    """Everything that a result may hold, of a regression."""
    made = Result(
        metric="rmse",
        direction="minimize",
        verdict="Test rmse 50 with dropout, better than 60 for the same network without regularization.",
        winner=winner(),
        baseline=setting("unregularized", 60.0, role="baseline", regularizers=(), behind_winner=interval(10.0, 4.0)),
        others=(setting("trial 5", 51.0), setting("framework defaults", 59.0, role="baseline")),
        gain=interval(10.0, 4.0),
        ties=("trial 5",),
        recommended=Recommendation(name="trial 5", reason="fewer weights", recipe={}),
        optimism=4.0,
        seeds=5,
        ablation=(
            Ablation(without="dropout", valid=spread(55.0), change=6.0, low=5.0, high=7.0, n=5),
            Ablation(without="l1", valid=spread(48.0), change=-1.0, low=float("-inf"), high=float("inf"), n=1),
        ),
        selection=Selection(name="trial 3", found=45.0, valid=49.0, test=50.0, optimism_valid=4.0, optimism_test=5.0),
        ensemble=Ensemble(
            members=(Member(name="trial 3", seed=0, share=0.5), Member(name="trial 5", seed=1, share=0.5)),
            valid=48.0,
            test=interval(49.0),
            single=Single(name="trial 3", seed=0, valid=49.0, test=interval(50.0)),
            gain=interval(1.0),
        ),
        importance=Importance(fanova={"dropout": 0.7, "lr": 0.3}, ped_anova={"lr": 0.5}, trials=30, reason=None),
        effects=(Effect(setting="lr", bins=(RangeBin(low=1e-4, high=1e-3, n=1, mean=52.0, standard_error=float("nan")),)),),
        weights={"trial 3": WeightStatistics(norm=spread(9.0), sparsity=spread(0.1), layers=())},
        curves={"trial 3": curves(1.0), "unregularized": curves(2.0)},
        sparsification={"trial 3": tuple(SparsityPoint(asked=part, sparsity=part, score=50 + part) for part in (0.0, 0.5))},
        rows=RowCounts(train=266, valid=88, test=88, duplicates=2),
        phases={"finalists": 3.5, "scoring": 0.5},
        finalizing_epochs=700,
        wall_seconds=83.4,
        search_seconds=71.4,
        finalizing_seconds=12.0,
        trials=SearchedTrials(waiting=0, running=0, complete=40, pruned=10, fail=10, epochs=900),
        utilization={"training": 0.87, "other": 0.13},
        concluded=None,
        provenance=Provenance(
            data_hash="cd" * 32,
            rows=442,
            versions={"torch": "2.13", "gone": None},
            device="x86_64",
            threads=2,
            plan=SearchPlan(
                capacity=32,
                compiled_lanes=4,
                threads=2,
                block_lanes=4,
                builds=True,
                separate=None,
                taken_over={"1f/0": {"update": 9}},
            ),
        ),
        test_accesses=1,
        model=delivered(),
        pictures=Pictures(test=Predictions(pairs=((1.0, 2.0), (3.0, 2.5)))),
    )
    return made.model_copy(update=changes)


def delivered(*, available: bool = True, reason: str | None = None) -> Delivered:
    """The network that is handed out."""
    return Delivered(
        of="trial 3",
        seed_index=0,
        seed=7,
        epoch=3,
        validation=49.0,
        rule="It is the best.",
        available=available,
        bytes=10 if available else None,
        sha256="ab" * 32 if available else None,
        program="trained = train(network, RECIPE, split(x, y, SEED), epochs=EPOCHS)\n" if available else None,
        reason=reason,
    )
