"""Checks of a study that starts from an earlier study's network: that the network exists, and that it fits.

The network is read from its archive without torch: its recipe, its preprocessing, and the hash that the study is bound to.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.api.issues import validated
from service.api.modules import published
from service.datasets import BuiltinFacts, TableInfo
from service.errors import Conflict, InvalidInput, Issue, NotFound
from service.objects import open_objects
from service.result import Result
from service.result.archive import ArrayPreprocessing, Preprocessing, TablePreprocessing, preprocessing_of
from service.settings import Settings
from service.spec import OFF, SETTINGS, DataSpec, Recipe, StudySpec, Value
from service.spec.domain import possible_values
from service.spec.model import MODEL_SETTINGS, MODULE
from service.spec.modules import ARGUMENT, Layout
from service.spec.recipe import ARCHITECTURE
from service.store import Store, StudyState
from service.store.records import StudyRecord
from service.trained import TrainedModels

_START = "model.start_from"
_REPLACED = "replace_normalization"
_PREPARED = ("scaling", "impute", "flag_missing", "impute_categories", "max_levels", "layout")
_SPLITTING = ("seed", "validation", "data.target", "data.groups", "data.time", "data.split")


@dataclass(frozen=True)
class Earlier:
    """A finished study and the description of its network in its archive."""

    record: StudyRecord
    spec: StudySpec
    recipe: Recipe
    fitted: Preprocessing
    sha256: str
    refit: bool
    """Whether the network was trained again on rows that its study validates or tests on."""
    arguments: Mapping[str, Value]
    """Of a module, those that were left to its defaults included."""

    @property
    def module(self) -> str | None:
        """The name of a module of theirs; None for networks of ours."""
        return str(self.recipe["module"]) if self.recipe.word("family") == MODULE else None


def earlier_network(spec: StudySpec, store: Store, settings: Settings, owner: str | None) -> Earlier | None:
    """The network that a study starts from; None where it starts from none.

    Raises:
        InvalidInput: The earlier study has no network.
        ObjectsUnavailable: The store of objects can't be reached.
    """
    start = spec.model.start_from
    return None if start is None else _earlier(start, store, TrainedModels(store, open_objects(settings)), owner)


def with_its_architecture(spec: StudySpec, earlier: Earlier | None) -> StudySpec:
    """The spec with the architecture of the network that it starts from, where its author has named no other.

    Raises:
        InvalidInput: What its author has named does not go with it.
    """
    if earlier is not None and earlier.module is not None:
        return _with_its_module(spec, earlier)
    if earlier is None or spec.model.module is not None:
        return spec
    document = spec.model_dump(mode="json", exclude_unset=True)
    for part, name, value in _architecture(earlier.recipe):
        if name not in spec.named:
            document[part][name] = value
    if not {"widths", "width", "depth"} & spec.named:
        document["model"] |= {"widths": list(earlier.recipe.widths), "width": None, "depth": None}
    return validated(document)


def _with_its_module(spec: StudySpec, earlier: Earlier) -> StudySpec:
    """The spec with the module, its arguments and what replaces its normalizations, where they are not named."""
    document = spec.model_dump(mode="json", exclude_unset=True)
    if "family" in spec.named and spec.model.word != MODULE:
        return spec
    named = {
        part: {name: value for name, value in document[part].items() if name in spec.named} for part in ("model", "space")
    }
    model, space = named["model"], named["space"]
    begun: dict[str, Any] = {"module": earlier.module, "reads": earlier.spec.model.layout}
    if model.get("module", earlier.module) == earlier.module:
        begun["args"] = {**_given(earlier.recipe), **model.pop("args", {})}
        space = {_REPLACED: earlier.recipe[_REPLACED], **space}
    return validated({**document, "model": {**begun, **model}, "space": space})


def _given(recipe: Recipe) -> dict[str, Value]:
    """The arguments of a recipe's module that are not left to its defaults."""
    return {name.removeprefix(ARGUMENT): value for name, value in recipe.items() if name.startswith(ARGUMENT)}


def _architecture(recipe: Recipe) -> Iterator[tuple[str, str, Value]]:
    """The settings of an architecture: the part of a study that each is in, its name, and its value as a study has it."""
    for name in ARCHITECTURE:
        setting = SETTINGS[name]
        if setting.when is None or recipe[setting.when.parent] in setting.when.values:
            neutral = setting.off and recipe[name] == setting.neutral
            yield "model" if name in MODEL_SETTINGS else "space", name, OFF if neutral else recipe[name]


def bound_to_start(
    spec: StudySpec, table: TableInfo, targets: Sequence[str], earlier: Earlier | None
) -> tuple[StudySpec, list[str]]:
    """The spec with the hash of the network that it starts from, and warnings; unchanged where it starts from none.

    Raises:
        InvalidInput: The network has another architecture, reads other columns or was trained on rows that are to be
            tested here.
    """
    if earlier is None:
        return spec, []
    issues = [*_shape(spec, earlier), *_columns(spec, table, targets, earlier), *_preparation(spec, earlier)]
    issues += _division(spec, earlier)
    if spec.model.start_sha256 not in (None, earlier.sha256):
        message = f"is not that of the network of study {earlier.record.id}"
        issues.append(Issue("model.start_sha256", message, spec.model.start_sha256, earlier.sha256))
    if issues:
        raise InvalidInput(issues)
    bound = spec.model.model_copy(update={"start_sha256": earlier.sha256})
    warnings = [] if _same_source(spec, earlier.spec) else [_OVERLAP.format(earlier.record.id)]
    return spec.model_copy(update={"model": bound}), warnings


_OVERLAP = (
    "The network of study {} was trained on other data; test scores are too good if that data contains rows tested here."
)


def _earlier(study_id: int, store: Store, models: TrainedModels, owner: str | None) -> Earlier:
    try:
        record = store.studies.get(study_id, owner)
    except NotFound:
        raise InvalidInput.one(_START, f"there is no study {study_id}", value=study_id, allowed="a finished study") from None
    if record.external:
        message = f"study {study_id} was run by a program, which has its networks"
        raise InvalidInput.one(_START, message, value=study_id, allowed="a study that workers ran")
    if record.state is not StudyState.FINISHED:
        message = f"study {study_id} is {record.state}; its network is available once it is finished"
        raise InvalidInput.one(_START, message, value=study_id, allowed="a finished study")
    try:
        sha256 = store.archives.get(study_id).sha256
        with models.archive(study_id) as path, zipfile.ZipFile(path) as files:
            about, fitted = (json.loads(files.read(name)) for name in ("recipe.json", "preprocessing.json"))
    except NotFound:
        model = None if record.result is None else Result.model_validate(record.result).model
        reason = "it was not kept" if model is None else model.reason or "it was not kept"
        message = f"study {study_id} has no network: {reason}"
        raise InvalidInput.one(_START, message, value=study_id, allowed="a study with a model") from None
    except Conflict as error:
        raise InvalidInput.one(_START, str(error), value=study_id, allowed="a study whose model is there") from None
    spec = StudySpec.model_validate(record.spec)
    refit, recipe = bool(about["chosen"].get("refit")), Recipe.from_json(about["recipe"])
    schemas = [schema for schema in published(store) if schema.name == spec.model.module]
    defaults = {
        name: each.default for schema in schemas for name, each in schema.arguments.items() if each.default is not None
    }
    arguments = {**defaults, **_given(recipe)}
    return Earlier(record, spec, recipe, preprocessing_of(fitted), sha256, refit, arguments)


def _shape(spec: StudySpec, earlier: Earlier) -> Iterator[Issue]:
    """Every setting of the architecture must be fixed to the network's value."""
    message = f"must match the network of study {earlier.record.id}"
    if spec.model.word != earlier.recipe.word("family"):
        yield Issue("model.family", message, spec.model.word, earlier.recipe.word("family"))
        return
    if earlier.module is not None:
        yield from _module(spec, earlier, message)
        return
    for part, name, wanted in _architecture(earlier.recipe):
        setting, domain = SETTINGS[name], spec.domains.get(name)
        if domain is None:
            continue
        found = {setting.neutral if value == OFF and setting.off else value for value in possible_values(domain) or ()}
        if found != {earlier.recipe[name]}:
            yield Issue(f"{part}.{name}", message, domain.model_dump(), wanted)
    widths = _widths(spec)
    if widths != earlier.recipe.widths:
        given = spec.model.widths or [getattr(spec.domains[name], "value", None) for name in ("width", "depth")]
        yield Issue("model.widths", message, given, list(earlier.recipe.widths))


def _module(spec: StudySpec, earlier: Earlier, message: str) -> Iterator[Issue]:
    """The module, its arguments and its normalizations must be those of the network."""
    model, replaced = spec.model, spec.domains[_REPLACED]
    if model.module != earlier.module:
        yield Issue("model.module", message, model.module, earlier.module)
        return
    for name in {**earlier.arguments, **model.args}:
        domain, wanted = model.args.get(name), earlier.arguments.get(name)
        found = {wanted} if domain is None else set(possible_values(domain) or ())
        if found != {wanted}:
            yield Issue(f"model.args.{name}", message, None if domain is None else domain.model_dump(), wanted)
    if set(possible_values(replaced) or ()) != {earlier.recipe[_REPLACED]}:
        yield Issue(f"space.{_REPLACED}", message, replaced.model_dump(), earlier.recipe[_REPLACED])
    if model.layout != earlier.spec.model.layout:
        yield Issue("model.reads", message, model.layout, earlier.spec.model.layout)


def _widths(spec: StudySpec) -> tuple[int, ...] | None:
    """Units of each hidden layer; None where they are searched."""
    if spec.model.widths is not None:
        return spec.model.widths
    fixed: dict[str, Any] = {name: getattr(spec.domains[name], "value", None) for name in ("family", "width", "depth")}
    return None if None in fixed.values() else Recipe(fixed).widths


def _columns(spec: StudySpec, table: TableInfo, targets: Sequence[str], earlier: Earlier) -> Iterator[Issue]:
    """The inputs must be the features that the network reads."""
    fitted = earlier.fitted
    if isinstance(fitted, ArrayPreprocessing):
        channels = _channels(spec.model.layout, table, spec.data.layout)
        if channels != len(fitted.mean):
            message = "has examples with another number of channels than the starting network reads"
            yield Issue("data", message, channels, len(fitted.mean))
        return
    kinds = _features(spec, table, targets)
    numbers, words = _sources(fitted), fitted.words.columns
    missing = [name for name in (*numbers, *words) if name not in kinds]
    extra = [name for name in kinds if name not in (*numbers, *words)]
    if missing:
        message = f"lacks columns that the starting network reads: {', '.join(missing)}"
        yield Issue("data", message, sorted(kinds), [*numbers, *words])
    if extra:
        yield Issue("data.drop", f"must name the columns that the starting network does not read: {', '.join(extra)}", extra)
    mixed = [name for name in numbers if kinds.get(name) == "categorical"]
    if mixed:
        yield Issue("data", f"has text in columns that the starting network reads as numbers: {', '.join(mixed)}", mixed)


def _sources(fitted: TablePreprocessing) -> list[str]:
    """The columns that the numbers of a network come from: times and sentences become several."""
    made = {name: f"{name}: " for name, reading in fitted.readings.items() if reading["kind"] != "number"}
    return list(
        dict.fromkeys(
            next((name for name, first in made.items() if column.startswith(first)), column)
            for column in fitted.numbers.columns
        )
    )


def _features(spec: StudySpec, table: TableInfo, targets: Sequence[str]) -> dict[str, str]:
    """The kinds of the columns that a network would read, by name."""
    if table.column("x") is not None and len(table.columns) == 1 + len(targets):
        return {f"x{index}": "numeric" for index in range(math.prod(table.shape))}
    others = {*targets, *spec.data.drop, *spec.data.aside}
    return {column.name: column.kind for column in table.columns if column.name not in others}


def _channels(reads: Layout, table: TableInfo, layout: str) -> int:
    if reads == "sequence":
        return table.shape[-1]
    if isinstance(table, BuiltinFacts) or len(table.shape) == 2:
        return 1
    first = layout == "channels_first" or (layout == "auto" and table.shape[0] < table.shape[-1])
    return table.shape[0] if first else table.shape[-1]


def _preparation(spec: StudySpec, earlier: Earlier) -> Iterator[Issue]:
    """The network comes with its preprocessing; the spec may not ask for any other."""
    for name in _PREPARED:
        value, fixed = getattr(spec.data, name), getattr(earlier.spec.data, name)
        if value not in (fixed, DataSpec.model_fields[name].default):
            message = f"must match study {earlier.record.id}, whose network comes with its preprocessing"
            yield Issue(f"data.{name}", message, value, fixed)


def _same_source(spec: StudySpec, other: StudySpec) -> bool:
    return (spec.data.dataset, spec.data.path) == (other.data.dataset, other.data.path)


def _division(spec: StudySpec, earlier: Earlier) -> Iterator[Issue]:
    """The same data must be split in the same way, as the network has seen the earlier study's training rows."""
    given = spec.data.split is not None and spec.data.split == earlier.spec.data.split
    if not _same_source(spec, earlier.spec):
        return
    if earlier.refit:
        message = f"study {earlier.record.id} has trained its network again on rows that are validated or tested here"
        yield Issue(_START, message, spec.model.start_from, "on the same data a study with deliver: off")
    if given:
        return
    for field in _SPLITTING:
        value, required = (_at(each, field) for each in (spec, earlier.spec))
        if value != required:
            message = f"must match study {earlier.record.id}; otherwise its network has seen rows that are tested here"
            yield Issue(field, message, value, required if required is not None else "nothing")


def _at(spec: StudySpec, field: str) -> object:
    found: Any = spec
    for name in field.split("."):
        found = getattr(found, name)
    return found.model_dump() if hasattr(found, "model_dump") else found
