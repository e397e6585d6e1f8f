"""The section on nested validation: what each outer fold chose, its score, and how much the folds agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.report.axes import number
from service.report.content import Block, Source, Table, Text, between
from service.report.recipe import formatted
from service.result import Nested, OuterFold
from service.spec.nested import place
from service.store.records import StudyRecord, TrialRecord


def of_all_rows(study: StudyRecord, trials: Sequence[TrialRecord]) -> Sequence[TrialRecord]:
    """The trials of the search on all rows; others are judged on other rows."""
    return [trial for trial in trials if place(trial.number, study.searches)[0] == 0]


def nested(source: Source) -> Iterator[Block]:
    """What nested validation found; nothing of other studies."""
    found = source.result.nested
    if found is None:
        return
    yield Text(_meaning(found, source.metric))
    yield Table(
        ("outer fold", "rows", "winner", f"validation {source.metric}", f"test {source.metric}", "unregularized, test"),
        [_scores(fold) for fold in found.folds],
    )
    yield Text(_agreement(found))
    names = sorted({name for fold in found.folds for name in fold.regularizers} | {*source.result.winner.regularizers})
    if names:
        head = ("regularizer", *(f"fold {fold.fold}" for fold in found.folds), "all rows")
        recipes = [*((fold.recipe, fold.regularizers) for fold in found.folds)]
        recipes += [(source.result.winner.recipe, source.result.winner.regularizers)]
        rows = [(name, *(formatted(recipe[name]) if name in on else "off" for recipe, on in recipes)) for name in names]
        yield Table(head, rows)


def _meaning(found: Nested, metric: str) -> str:
    against = ""
    if found.baseline is not None and found.gain is not None:
        against = (
            f" Without regularization, the same networks have {number(found.baseline.mean)} on the same outer folds; the "
            f"paired difference is {number(found.gain.mean)} ({between(found.gain)})."
        )
    return (
        f"The test {metric} is {number(found.score.mean)} ({between(found.score)}), from all {found.score.n:,} rows. They "
        f"were divided into {len(found.folds)} outer folds; on the rows outside of each a search of {found.trials} trials "
        "was made, of which the winner was scored on the rows inside. So the score belongs to the procedure: to searching, "
        "choosing and training on rows like these, a little fewer of them. It is not that of one network; the network that "
        f"is handed out comes from one more such search on all rows.{against} As outer folds share most of their training "
        f"rows, the standard errors of the rows were multiplied by {number(found.widening)} (Nadeau and Bengio 2003)."
    )


def _scores(fold: OuterFold) -> tuple[str, ...]:
    scores = (number(fold.valid), number(fold.test), number(fold.baseline))
    return (f"fold {fold.fold}", f"{fold.rows:,}", f"trial {fold.trial}", *scores)


def _agreement(found: Nested) -> str:
    return (
        f"Of the regularizers that either of two outer folds chose, both chose {found.agreement:.0%} on average. Where they "
        "choose differently, rows as few as these do not determine the recipe, although its score may be sound."
    )
