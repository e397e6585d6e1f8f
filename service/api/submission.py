"""What a submit is checked for beyond its own shape: that the data is there and fits, and what the study will do.

Nothing here reads rows: files are described once, when they are uploaded (a path is described at every submit).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from service.api.problems import validation_issues
from service.datasets import BUILTIN, Column, TableInfo, infer_task, inspect, resolve_path
from service.datasets.uploads import file_format
from service.errors import InvalidInput, NotFound
from service.settings import Settings
from service.spec import SETTINGS, Choices, Range, StudySpec, Task
from service.spec.guidance import warnings_for
from service.store import Store

_FEWEST_ROWS = 20


@dataclass(frozen=True)
class Submission:
    """A study that may be queued."""

    spec: StudySpec
    dataset_id: str | None
    warnings: Sequence[str]


def check(spec: StudySpec, store: Store, settings: Settings) -> Submission:
    """Resolve a spec against its data.

    Raises:
        InvalidInput: The data set, a column or the task does not fit, with the field, the value and what is allowed.
    """
    table, dataset_id, own = _table(spec, store, settings)
    target = _target(spec, table, own)
    _columns(spec, table, target.name)
    if table.rows < _FEWEST_ROWS:
        raise InvalidInput.one("data", f"has {table.rows} rows", value=table.rows, allowed=f"at least {_FEWEST_ROWS}")
    task = _task(spec, target, table.rows)
    try:
        resolved = spec.resolved(task)
    except ValidationError as error:
        raise InvalidInput(validation_issues(error)) from None
    return Submission(resolved, dataset_id, warnings_for(resolved))


def note_of(spec: StudySpec) -> str:
    """The study's note in the dashboard: what is being searched, and the spec whole."""
    searched = [name for name, domain in spec.domains.items() if isinstance(domain, Range | Choices)]
    text = json.dumps(spec.model_dump(mode="json", exclude_none=True), indent=2)
    return (
        f"# {spec.name}\n\nObjective: validation **{spec.metric}**, to be {spec.direction}d. Budget: {spec.budget.trials} "
        f"trials of at most {spec.budget.epochs} epochs.\n\nSearched: {', '.join(searched)}.\n\n```json\n{text}\n```\n"
    )


def plan_of(spec: StudySpec) -> dict[str, Any]:
    """What the study will do, as far as it follows from the spec."""
    stacks = 1
    for name, domain in spec.domains.items():
        if SETTINGS[name].scope == "stack" and isinstance(domain, Choices):
            stacks *= len(domain.choices)
    most = spec.budget.trials * spec.budget.epochs
    searched = [name for name, domain in spec.domains.items() if isinstance(domain, Range | Choices)]
    return {"searched": searched, "stacks": stacks, "most_trial_epochs": most}


def _table(spec: StudySpec, store: Store, settings: Settings) -> tuple[TableInfo, str | None, str | None]:
    """The table, the id of an uploaded data set, and the target that the source itself knows."""
    name = spec.data.dataset
    if name is None:
        path = resolve_path(str(spec.data.path), settings.data_roots)
        ending = file_format(str(path), "data.path")
        return inspect(path, ending), None, "y" if ending == "npz" else None
    if name in BUILTIN:
        return BUILTIN[name], None, "target"
    try:
        record = store.datasets.get(name)
    except NotFound:
        known = [*BUILTIN, *(record.id for record in store.datasets.list())]
        raise InvalidInput.one("data.dataset", "does not exist", value=name, allowed=known) from None
    columns = tuple(Column(**column) for column in record.columns)
    return TableInfo(record.rows, columns, record.shape), record.id, "y" if record.format == "npz" else None


def _target(spec: StudySpec, table: TableInfo, own: str | None) -> Column:
    name = spec.data.target or own
    names = [column.name for column in table.columns]
    if name is None:
        raise InvalidInput.one("data.target", "is required for this data set", allowed=names)
    column = table.column(name)
    if column is None or (own is not None and name != own):
        raise _no_column("data.target", name, [own] if own else names)
    return column


def _columns(spec: StudySpec, table: TableInfo, target: str) -> None:
    names = [column.name for column in table.columns if column.name != target]
    for field, wanted in (("categorical", spec.data.categorical), ("drop", spec.data.drop)):
        for index, name in enumerate(wanted):
            if name not in names:
                raise _no_column(f"data.{field}.{index}", name, names)
    if set(names) <= set(spec.data.drop):
        raise InvalidInput.one(
            "data.drop", "leaves no column to predict from", value=list(spec.data.drop), allowed="fewer columns"
        )


def _task(spec: StudySpec, target: Column, rows: int) -> Task:
    inferred = infer_task(target, rows)
    if spec.task == "regression" and target.kind == "categorical":
        message = f"cannot be regression: the target {target.name!r} holds words"
        raise InvalidInput.one("task", message, value=spec.task, allowed="classification")
    task = spec.task or inferred
    if task == "classification" and target.distinct < 2:
        message = f"the target {target.name!r} has one value only"
        raise InvalidInput.one("data.target", message, value=target.name, allowed="a column with at least two classes")
    if task == "classification" and target.distinct > max(2, rows // 4):
        message = f"cannot be classification: the target {target.name!r} has {target.distinct} values in {rows} rows"
        raise InvalidInput.one("task", message, value=spec.task, allowed="regression, or another target")
    return task


def _no_column(field: str, name: str, names: Sequence[str]) -> InvalidInput:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return InvalidInput.one(field, f"there is no column {name!r}{hint}", value=name, allowed=list(names))
