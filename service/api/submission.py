"""Checks of a submitted spec against its data, and the plan of the study.

No rows are read here: an uploaded file is described once, and a file given by path again only when it has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.api.access import Caller
from service.api.budgets import check_grid
from service.api.columns import check_columns, check_division, check_embedding, check_rows, has_categories, no_column
from service.api.data_sheets import DataSheet, data_sheet, notes_for, table_of
from service.api.earlier import check_earlier
from service.api.fine_tuning import bound_to_start, earlier_network, with_its_architecture
from service.api.inspection import Inspections
from service.api.issues import validation_issues
from service.api.memory import check_devices, check_memory
from service.api.modules import check_module
from service.api.targets import check_positive, targets_of, task_of
from service.datasets import BUILTIN, BuiltinFacts, TableInfo, held
from service.datasets.readings import ColumnType, read_by
from service.datasets.tables import OF_ARRAYS
from service.datasets.uploads import file_format, is_folder, uploaded
from service.errors import InvalidInput, Issue, NotFound, TrialError
from service.objects import open_objects
from service.search import Search
from service.settings import Settings
from service.spec import DataSpec, StudySpec
from service.spec.external import ExternalSpec
from service.spec.guidance import warnings_for
from service.spec.model import FAMILIES, MODULE
from service.store import Store


@dataclass(frozen=True)
class Submission:
    """A study that may be queued."""

    spec: StudySpec
    dataset_id: str | None
    warnings: Sequence[str]
    data: DataSheet


def check(
    spec: StudySpec, store: Store, settings: Settings, inspections: Inspections, owner: str | None = None
) -> Submission:
    """Resolve a spec against its data; data sets and studies of others than its ``owner`` do not exist, unless it is None.

    Raises:
        InvalidInput: The data set, a column or the task does not fit; with the field, the value and what is allowed.
    """
    earlier = earlier_network(spec, store, settings, owner)
    spec = with_its_architecture(spec, earlier)
    table, dataset_id, own, ending = _table(spec, store, settings, inspections, owner)
    table = _typed(spec, _resized(spec, table), arrays=own == "y")
    targets = targets_of(spec, table, own)
    spec = check_module(spec, table, store, settings)
    check_columns(spec, table, targets.names, rows_of_arrays=own == "y")
    _family(spec, table)
    check_embedding(spec, table, targets.names)
    rows = table.rows - targets.missing
    task = task_of(spec, targets, rows)
    check_positive(spec, task, targets, table)
    try:
        resolved = spec.resolved(task, rows, categories=has_categories(spec, table, targets.names))
    except ValidationError as error:
        raise InvalidInput(validation_issues(error)) from None
    check_rows(resolved, rows)
    check_division(resolved, table)
    check_memory(resolved, table, store, ending)
    check_devices(resolved, store)
    check_grid(resolved)
    check_earlier(resolved, store, owner)
    bound, about_start = bound_to_start(resolved, table, targets.names, earlier)
    notes = notes_for(spec, bound, table, targets)
    told = [note.text for note in notes if note.warns]
    return Submission(
        bound,
        dataset_id,
        [*warnings_for(bound), *_advice(bound, table), *told, *about_start],
        data_sheet(bound, table, targets, notes),
    )


def owned(spec: StudySpec | ExternalSpec, caller: Caller) -> StudySpec | ExternalSpec:
    """A spec as its caller's; an admin may submit for anybody, and so may everybody where there are no tokens.

    Raises:
        InvalidInput: It names another owner.
    """
    if caller.token is None or (caller.owner is None and "owner" in spec.model_fields_set):
        return spec
    if "owner" in spec.model_fields_set and spec.owner != caller.whose:
        raise InvalidInput.one("owner", "is not the token's owner", value=spec.owner, allowed=caller.whose)
    return spec.model_copy(update={"owner": caller.whose})


def check_external(spec: ExternalSpec) -> None:
    """Check a study that a program runs.

    Raises:
        InvalidInput: A grid has too many or too few points, or a sampler lacks its package here.
    """
    check_grid(spec)
    try:
        Search(spec)
    except TrialError as error:
        raise InvalidInput.one("sampler", str(error), value=spec.sampler.name, allowed="another sampler") from None


def note_of(spec: StudySpec | ExternalSpec) -> str:
    """The study's note in the dashboard: what is searched, and the whole spec."""
    aims = ", and ".join(f"validation **{name}**, to be {direction}d" for name, direction in spec.objectives.items())
    text = spec.model_dump_json(indent=2, exclude_none=True)
    searches = f"{spec.searches} searches of " if spec.searches > 1 else ""
    return (
        f"# {spec.name}\n\nObjective: {aims}. Budget: {searches}{spec.budget.trials} "
        f"trials of at most {spec.budget.epochs} epochs.\n\nSearched: {', '.join(spec.searched)}.\n\n```json\n{text}\n```\n"
    )


def plan_of(spec: StudySpec | ExternalSpec) -> dict[str, Any]:
    """The plan of a study as far as it follows from the spec; programs train no stacks."""
    stacks = {"stacks": spec.stack_keys} if isinstance(spec, StudySpec) else {}
    most = spec.budget.trials * spec.searches * spec.budget.epochs
    return {"searched": spec.searched, **stacks, "most_trial_epochs": most}


def _table(
    spec: StudySpec, store: Store, settings: Settings, inspections: Inspections, owner: str | None
) -> tuple[TableInfo, str | None, str | None, str]:
    """The table, the id of an uploaded data set, the target that the source itself defines, and the file's ending."""
    name = spec.data.dataset
    if name is None:
        table, ending = _file(spec.data, settings.data_roots, inspections)
        _check_format(spec, ending)
        return table, None, "y" if ending in OF_ARRAYS else None, ending
    if name in BUILTIN:
        _check_format(spec, "built-in")
        return BUILTIN[name], None, "target", ""
    try:
        record = store.datasets.get(name, owner)
    except NotFound:
        known = [*BUILTIN, *(record.id for record in store.datasets.list(owner))]
        raise InvalidInput.one("data.dataset", "does not exist", value=name, allowed=known) from None
    _check_format(spec, record.format)
    if spec.data.missing:  # its description is of another reading
        with uploaded(open_objects(settings), record.id, record.format) as path:
            return inspections.of(path, record.format, spec.data.missing), record.id, None, record.format
    own = "y" if record.format in OF_ARRAYS else None
    return table_of(record, settings, store, inspections), record.id, own, record.format


def _resized(spec: StudySpec, table: TableInfo) -> TableInfo:
    """The table with images of the size that `data.image_size` says."""
    side = spec.data.image_size
    return table if side is None else replace(table, shape=(side, side, *table.shape[2:]))


def _typed(spec: StudySpec, table: TableInfo, *, arrays: bool) -> TableInfo:
    """The table with its columns read as `data.types` and `data.categorical` say."""
    types = spec.data.types
    if arrays and types:
        raise InvalidInput.one("data.types", "names columns, but arrays have no columns", value=types, allowed="nothing")
    names = [column.name for column in table.columns]
    for name in types:
        if name not in names:
            raise no_column(f"data.types.{name}", name, names)
    asked: dict[str, ColumnType] = dict.fromkeys(spec.data.categorical, "category")
    twice = [name for name, word in types.items() if asked.get(name, word) != word]
    if twice:
        allowed = "either data.categorical or data.types"
        raise InvalidInput.one(
            f"data.types.{twice[0]}", "is also in data.categorical", value=types[twice[0]], allowed=allowed
        )
    return replace(table, columns=read_by(table.columns, {**types, **asked}))


def _check_format(spec: StudySpec, ending: str) -> None:
    """Only tables in files have words, and only ZIP files images of several sizes."""
    if spec.data.image_size is not None and ending != "zip":
        message = "applies to ZIP files of images only"
        raise InvalidInput.one("data.image_size", message, value=spec.data.image_size, allowed="nothing")
    if spec.data.missing and (ending in OF_ARRAYS or ending == "built-in"):
        message = "applies to tables in files only"
        raise InvalidInput.one("data.missing", message, value=list(spec.data.missing), allowed="nothing")


def _file(data: DataSpec, roots: Sequence[Path], inspections: Inspections) -> tuple[TableInfo, str]:
    """The table in a file named by its path, and the file's format; errors are reported for ``data.path``."""
    given = str(data.path)
    try:
        with held(given, roots) as path:
            ending = file_format(str(path.resolve()), "data.path")
            return inspections.of(path, ending, data.missing), ending
    except InvalidInput as error:
        if is_folder(Path(given), roots):
            message = "is a folder; one of Parquet files, arrays or images becomes a data set by its address, file://…"
            allowed = "a file, or data.dataset with the id that regsearch upload prints"
            raise InvalidInput.one("data.path", message, value=given, allowed=allowed) from None
        raise InvalidInput([_of_path(issue, given) for issue in error.issues]) from None
    except (OSError, RuntimeError, ValueError):
        # A name that is too long for the file system, or a cycle of links: reported like any other missing file.
        allowed = ", ".join(map(str, roots))
        raise InvalidInput.one(
            "data.path", "is not a file under an allowed directory", value=given, allowed=allowed
        ) from None


def _of_path(issue: Issue, given: str) -> Issue:
    allowed = issue.allowed or "a CSV, Parquet or NPZ file with a table"
    return replace(issue, field="data.path", value=issue.value or given, allowed=allowed)


def _family(spec: StudySpec, table: TableInfo) -> None:
    """Check the family: a CNN reads images, a sequence model series, and an MLP anything, as rows of numbers."""
    family, allowed = spec.model.word, (*_families(table), MODULE)
    layout = spec.model.layout
    if family not in allowed:
        needed = {
            "cnn": "images (rows, h, w), (rows, h, w, c) or (rows, c, h, w)",
            "sequence": "series (rows, time, channels)",
        }
        message = f"needs an NPZ file whose x is {needed[family]}; here an example has the shape {tuple(table.shape)}"
        raise InvalidInput.one("model.family", message, value=family, allowed=_families(table))
    for name in ("categorical", "drop"):
        given: Sequence[str] = getattr(spec.data, name)
        if given and layout != "flat":
            message = f"names columns, but the input of a {family} has none"
            raise InvalidInput.one(f"data.{name}", message, value=list(given), allowed="nothing")
    if spec.data.layout != "auto" and (layout != "image" or len(table.shape) != 3):
        message = "applies to images with channels (rows, a, b, c) only"
        raise InvalidInput.one("data.layout", message, value=spec.data.layout, allowed="auto")
    for name in ("scaling", "impute", "flag_missing", "impute_categories", "max_levels"):
        value, usual = getattr(spec.data, name), DataSpec.model_fields[name].default
        if value != usual and layout != "flat":
            message = f"applies to columns, but the input of a {family} has none"
            raise InvalidInput.one(f"data.{name}", message, value=value, allowed=f"{usual}")


def _families(table: TableInfo) -> tuple[str, ...]:
    """The model families that can read a table, by the number of axes of an example."""
    if isinstance(table, BuiltinFacts):
        return ("mlp", "cnn") if table.image else ("mlp",)
    return {1: ("mlp",), 2: FAMILIES, 3: ("mlp", "cnn")}[len(table.shape)]


def _advice(spec: StudySpec, table: TableInfo) -> list[str]:
    if spec.model.word != "mlp" or len(table.shape) == 1:
        return []
    others = " or ".join(name for name in _families(table) if name != "mlp")
    return [
        f"An mlp reads examples of shape {tuple(table.shape)} as rows of numbers; model.family: {others} keeps the shape."
    ]
