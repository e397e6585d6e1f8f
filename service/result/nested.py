"""What nested validation found: the score of the whole procedure from all rows, and what each outer fold chose."""

from __future__ import annotations

from pydantic import Field

from service.result.base import Number, Part
from service.result.scores import Interval, RecipeValues


class OuterFold(Part):
    """The search outside of one outer fold: its winner, scored on the rows inside."""

    fold: int = Field(description="Its number, from 1.")
    rows: int = Field(description="Rows inside, which the search did not see.")
    trial: int = Field(description="The winner's trial.")
    recipe: RecipeValues
    regularizers: tuple[str, ...] = Field(description="Settings of the recipe that regularize and are on.")
    valid: Number = Field(description="The winner's score on validation rows, a mean over seeds.")
    test: Number = Field(description="Its score on the rows inside, a mean over seeds.")
    baseline: Number = Field(description="That of the same search's network without regularization.")


class Nested(Part):
    """The score belongs to the procedure (search, choice, training), not to the network that is handed out, which comes
    from the same procedure on all rows.
    """

    score: Interval = Field(description="Of all rows, each predicted by the winner of the search that did not see it.")
    baseline: Interval | None = Field(description="The same without regularization; null if that could not be trained.")
    gain: Interval | None = Field(description="Paired difference of both; positive: the procedure is better.")
    widening: float = Field(
        description="By how much the standard errors of the rows were multiplied, as outer folds share training rows "
        "(Nadeau and Bengio 2003)."
    )
    trials: int = Field(description="Trials of each search.")
    agreement: float = Field(
        description="How alike the outer folds' regularizers are: shared ones of all, a mean over pairs; between 0 and 1."
    )
    folds: tuple[OuterFold, ...]
