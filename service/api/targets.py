"""The target of a study, or several, and the task that follows from what a table tells of them; no rows are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.api.columns import no_column
from service.datasets import BuiltinFacts, Column, TableInfo, infer_task
from service.errors import InvalidInput
from service.spec import StudySpec, Task

_SHOWN = 3


@dataclass(frozen=True)
class Targets:
    """The columns that a study predicts, at least one."""

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def missing(self) -> int:
        """Rows that lack a target, at least: of several, some may lack one and some another."""
        return max(column.missing for column in self.columns)

    @property
    def most_missing(self) -> int:
        """Rows that lack a target, at most."""
        return sum(column.missing for column in self.columns)


def targets_of(spec: StudySpec, table: TableInfo, own: str | None) -> Targets:
    """The columns that `data.target` names, or those that the source itself defines.

    Args:
        spec: The study.
        table: What it reads.
        own: The name of the target that a built-in data set or an array has.

    Raises:
        InvalidInput: A column does not exist, or none is named.
    """
    names = [column.name for column in table.columns]
    if own == "y":
        names = [name for name in names if name != "x"]
    elif own is not None:
        names = [own]
    wanted = spec.data.targets or (tuple(names) if own is not None else ())
    if not wanted:
        raise InvalidInput.one("data.target", "is required for this data set", allowed=names)
    for name in wanted:
        if name not in names:
            raise no_column("data.target", name, names)
    if own is not None and wanted != tuple(names):
        message = "selects some of the targets of an array; leave it out, and the study predicts all of them"
        raise InvalidInput.one("data.target", message, value=list(wanted), allowed=names)
    return Targets(tuple(column for name in wanted for column in table.columns if column.name == name))


def task_of(spec: StudySpec, targets: Targets, rows: int) -> Task:
    """The study's task, inferred where it is left out.

    Raises:
        InvalidInput: The targets do not fit the task, or no task at all.
    """
    for column in targets.columns:
        if column.distinct < 2:
            message = f"the target {column.name!r} has only one value"
            raise InvalidInput.one("data.target", message, value=column.name, allowed="columns with at least two values")
    if len(targets.columns) > 1:
        return _of_several(spec, targets.columns)
    (target,) = targets.columns
    inferred = infer_task(target, rows)
    if spec.task == "multilabel":
        message = "cannot be multilabel: there is one target"
        raise InvalidInput.one("task", message, value=spec.task, allowed="classification, or several columns in data.target")
    if spec.task == "regression" and target.kind != "numeric":
        message = f"cannot be regression: the target {target.name!r} contains text"
        raise InvalidInput.one("task", message, value=spec.task, allowed="classification")
    task = spec.task or inferred
    if task == "classification" and target.distinct > max(2, rows // 4):
        message = f"cannot be classification: the target {target.name!r} has {target.distinct} values in {rows} rows"
        message = ". ".join([message, *target.doubts()]).removesuffix(".")
        raise InvalidInput.one("task", message, value=spec.task, allowed="regression, or another target")
    return task


def _of_several(spec: StudySpec, columns: Sequence[Column]) -> Task:
    """Labels if each has two values; numbers if all are such, and none seems to be a label or the study says so."""
    labels = [column for column in columns if column.distinct == 2]
    texts = [column for column in columns if column.kind != "numeric"]
    if spec.task == "classification":
        message = "cannot be classification: there are several targets"
        raise InvalidInput.one("task", message, value=spec.task, allowed="multilabel, regression, or one target")
    if spec.task == "regression":
        if texts:
            message = f"cannot be regression: {_listed(texts)} contain text"
            raise InvalidInput.one("task", message, value=spec.task, allowed="numbers in every column of data.target")
        return "regression"
    if len(labels) == len(columns):
        return "multilabel"
    if spec.task == "multilabel":
        others = [column for column in columns if column not in labels]
        message = f"cannot be multilabel: {_listed(others)} have more than two values"
        raise InvalidInput.one("task", message, value=spec.task, allowed="two values in every column of data.target")
    if not labels and not texts:
        return "regression"
    kinds = [_kind(column) for column in (*labels[:1], *[each for each in columns if each not in labels][:_SHOWN])]
    allowed = "columns of two values each (multilabel), or of numbers (regression); of other mixtures a study for each"
    if not texts:
        allowed += "; as all of these are numbers, task: regression reads them so"
    names = [column.name for column in columns]
    raise InvalidInput.one("data.target", f"mixes kinds of targets: {', '.join(kinds)}", value=names, allowed=allowed)


def _kind(column: Column) -> str:
    if column.distinct == 2:
        return f"{column.name!r} has two values"
    return f"{column.name!r} has {'numbers' if column.kind == 'numeric' else f'{column.distinct} values of text'}"


def _listed(columns: Sequence[Column]) -> str:
    names = ", ".join(repr(column.name) for column in columns[:_SHOWN])
    return names + (f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else "")


def check_positive(spec: StudySpec, task: Task, targets: Targets, table: TableInfo) -> None:
    """A positive class needs two classes; whether an uploaded file contains it is checked when its rows are read.

    Raises:
        InvalidInput: There are not two classes, or a built-in data set has no such class.
    """
    value = spec.data.positive
    if value is None:
        return
    if task != "classification" or targets.columns[0].distinct != 2:
        found = {"classification": f"{targets.columns[0].distinct} classes", "multilabel": "several labels"}
        message = f"needs a target with two classes, not {found.get(task, 'a regression')}"
        raise InvalidInput.one("data.positive", message, value=value, allowed="nothing")
    if isinstance(table, BuiltinFacts) and value not in table.classes:
        raise InvalidInput.one("data.positive", f"there is no class {value!r}", value=value, allowed=list(table.classes))
