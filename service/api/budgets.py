"""Checks of budgets against what they are for: grids, and studies whose budget is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from service.api.issues import validation_issues
from service.errors import InvalidInput
from service.search.planned import MOST_POINTS, grid
from service.spec import GridSampler, StudySpec
from service.spec.external import ExternalSpec, any_spec
from service.store.records import StudyRecord


def check_more(study: StudyRecord, trials: int) -> None:
    """Check that a study could have been submitted with so many more ``trials``.

    Raises:
        InvalidInput: The budget or the grid would be too large or too small, on the field ``trials``.
    """
    raw = {**study.spec, "budget": {**study.spec["budget"], "trials": study.budget_trials + trials}}
    try:
        check_grid(any_spec(raw))
    except (ValidationError, InvalidInput) as error:
        issues = validation_issues(error) if isinstance(error, ValidationError) else error.issues
        together = f"with the {study.budget_trials} trials that the study has"
        raise InvalidInput(
            [replace(each, field="trials", message=f"{together}: {each.message}") for each in issues]
        ) from None


def check_changed(study: StudyRecord, changes: Mapping[str, Any]) -> None:
    """Check that a study could have been submitted with these parts of its spec.

    Raises:
        InvalidInput: On the field of the change that is not possible.
    """
    raw = {**study.spec, **changes, "budget": {**study.spec["budget"], **changes.get("budget", {})}}
    try:
        check_grid(any_spec(raw))
    except ValidationError as error:
        raise InvalidInput(validation_issues(error)) from None


def check_grid(spec: StudySpec | ExternalSpec) -> None:
    """Check that a grid has a point for every trial that is not enqueued.

    Raises:
        InvalidInput: It has too many or too few.
    """
    if not isinstance(spec.sampler, GridSampler):
        return
    try:
        size = sum(block.size for block in grid(spec, spec.sampler.points))
    except ValueError as error:
        allowed = f"at most {MOST_POINTS:,} points"
        raise InvalidInput.one("sampler", f"the grid {error}", value=spec.sampler.points, allowed=allowed) from None
    if spec.budget.trials > size + len(spec.enqueue):
        message = f"the grid has only {size} points" + (" besides the enqueued ones" if spec.enqueue else "")
        allowed = f"at most {size + len(spec.enqueue)}"
        raise InvalidInput.one("budget.trials", message, value=spec.budget.trials, allowed=allowed)
