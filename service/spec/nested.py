"""Nested validation: the test score of a search from all rows, of which each is the test row of one further search.

A study then has several searches with the same space, sampler and budget: number 0 on all rows, from which the delivered
network comes, and one on the rows outside of each outer fold. Their trials are one sequence: trial n belongs to search
``n % searches``, in which it has the number ``n // searches``. So all searches advance alike, whatever ends them.
Reference: Varma and Simon, "Bias in error estimation when using cross-validation for model selection" (2006).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from service.spec.setting import refuse

if TYPE_CHECKING:
    from service.spec.study import StudySpec

NESTED = "nested"


def place(number: int, searches: int) -> tuple[int, int]:
    """The search of a trial, and the trial's number in it.

    >>> [place(number, 3) for number in range(5)]
    [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    """
    own, search = divmod(number, searches)
    return search, own


def searches_in(spec: Mapping[str, Any]) -> int:
    """Number of searches of a study with this stored spec, which may be of an earlier version."""
    division = spec.get("validation") or {}
    return 1 + int(division["outer_folds"]) if division.get("method") == NESTED else 1


def check_nested(spec: StudySpec) -> None:
    """Check that all parts of a spec fit nested validation, if it has one.

    Raises:
        PydanticCustomError: A part does not.
    """
    if spec.validation.method != NESTED:
        return
    _check_division(spec)
    if spec.search_from:
        message = "brings in trials that were judged on rows which nested validation tests on"
        refuse("search_from", message, list(spec.search_from), "no earlier studies, or validation.method: kfold")
    if spec.model.start_from is not None:
        message = "is a network that may have seen the rows which nested validation tests on"
        refuse("model.start_from", message, spec.model.start_from, "validation.method: kfold")
    if spec.also:
        refuse("also", "is not for nested validation, which has one objective", list(spec.also), "no further objectives")
    if spec.budget.conclude is not None:
        refuse("budget.conclude", "would end the searches of nested validation at different times", "on", "off")
    if spec.deliver is not None and spec.deliver.rows == "train_valid":
        message = "leaves out the test part, which nested validation does not have"
        refuse("deliver.rows", message, spec.deliver.rows, "all")


def _check_division(spec: StudySpec) -> None:
    division = spec.validation
    if division.test_fraction != type(division).model_fields["test_fraction"].default:
        message = "has no effect on nested validation, in which every row is a test row once"
        refuse("validation.test_fraction", message, division.test_fraction, "validation.outer_folds")
    if division.given:
        refuse("validation.given", "cannot be combined with nested validation", True, "false")
    for name in ("time", "split"):
        column = getattr(spec.data, name)
        if column is not None:
            refuse(f"data.{name}", "divides the rows, as nested validation does", column, "validation.method: holdout")
