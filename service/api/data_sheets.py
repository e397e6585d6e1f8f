"""The data sheet of a study: how its data are read, which rows are used, and what may mislead it."""

from __future__ import annotations

from dataclasses import asdict, replace

from pydantic import BaseModel, Field

from service.api.inspection import Inspections
from service.api.targets import Targets
from service.datasets import Column, TableInfo
from service.datasets.sheet import Note, notes_on, notes_on_target
from service.datasets.tables import table_from
from service.datasets.uploads import uploaded
from service.objects import open_objects
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store
from service.store.records import DatasetRecord

_FEW_VALUES = 50
_KINDS = {"classification": "class", "multilabel": "label"}
_OF_TARGETS = ("ambiguous", "reading", "large", "header", "rows")
"""Topics that concern a target too: that it differs in every row or is text does not matter."""


class ColumnUse(BaseModel):
    """What a study makes of a column."""

    name: str
    use: str = Field(description="target, input, groups, time, split, weights, or dropped.")
    kind: str
    why: str
    missing: int
    distinct: int
    notes: list[str]


class DataSheet(BaseModel):
    """How a study reads its data."""

    rows: int = Field(description="Of the data set.")
    used: int = Field(description="Of several targets with missing values, at most.")
    dropped: dict[str, int] = Field(description="Rows that are left out, by reason; likewise at least.")
    equal_rows: int = Field(description="Rows that repeat an earlier one, target included.")
    columns: list[ColumnUse]
    notes: list[str] = Field(description="On the table as a whole.")


def recorded(record: DatasetRecord) -> TableInfo:
    """The table that a record describes."""
    return table_from({"rows": record.rows, "columns": record.columns, "shape": record.shape, "sheet": record.sheet})


def table_of(record: DatasetRecord, settings: Settings, store: Store, inspections: Inspections) -> TableInfo:
    """The table of an uploaded data set; one that an earlier version has described is described again, once.

    Raises:
        InvalidInput: Its file is gone or changed.
    """
    if record.sheet is not None:
        return recorded(record)
    with uploaded(open_objects(settings), record.id, record.format) as path:
        table = inspections.of(path, record.format)
    columns = tuple(asdict(column) for column in table.columns)
    store.datasets.add(replace(record, columns=columns, sheet=asdict(table.sheet)), owner=None)
    return table


def notes_for(given: StudySpec, spec: StudySpec, table: TableInfo, targets: Targets) -> list[Note]:
    """What a study should know of its data: of the columns that it uses as inputs, and of its targets."""
    uses = {column.name: _use(spec, column, targets) for column in table.columns}
    asked = {*given.data.types, *given.data.categorical}

    def concerns(note: Note) -> bool:
        if note.column is None:
            return True
        if note.column in asked and note.topic in ("ambiguous", "text"):
            return False
        return uses[note.column] == "input" or (uses[note.column] == "target" and note.topic in _OF_TARGETS)

    classes, names = spec.task != "regression", targets.names
    about = [note for target in targets.columns for note in notes_on_target(table, target, classes=classes, others=names)]
    about = [note for note in about if uses[str(note.column)] in ("input", "target")]
    notes = [*about, *filter(concerns, notes_on(table, names))]
    if targets.most_missing > targets.missing:
        text = (
            f"Rows that lack any of the {len(names)} targets are left out: {targets.missing} to {targets.most_missing} of "
            f"{table.rows}."
        )
        notes.append(Note("target", None, text))
    (target, *others) = targets.columns
    if given.task is None and spec.task == "regression" and target.whole and target.distinct <= _FEW_VALUES and not others:
        text = (
            f"The target {target.name!r} has {target.distinct} distinct whole numbers and is read as a quantity; "
            "task: classification reads them as classes."
        )
        notes.append(Note("target", target.name, text))
    return notes


def _use(spec: StudySpec, column: Column, targets: Targets) -> str:
    data = spec.data
    uses = {**dict.fromkeys(targets.names, "target"), **dict.fromkeys(data.drop, "dropped")}
    uses |= data.aside
    return uses.get(column.name, "input")


def data_sheet(spec: StudySpec, table: TableInfo, targets: Targets, notes: list[Note]) -> DataSheet:
    """The sheet of a resolved study."""
    columns = [
        ColumnUse(
            name=column.name,
            use=_use(spec, column, targets),
            kind=_KINDS.get(str(spec.task), column.kind) if column in targets.columns else column.kind,
            why=column.why,
            missing=column.missing,
            distinct=column.distinct,
            notes=[note.text for note in notes if note.column == column.name],
        )
        for column in table.columns
    ]
    return DataSheet(
        rows=table.rows,
        used=table.rows - targets.missing,
        dropped={"no target": targets.missing} if targets.missing else {},
        equal_rows=table.sheet.equal_rows,
        columns=columns,
        notes=[note.text for note in notes if note.column is None],
    )
