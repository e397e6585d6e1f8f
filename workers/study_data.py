"""A study's data in all forms that searching and finalizing need: loaded, split, preprocessed, on the device.

Uses the store for uploaded files and for the networks that fine-tuning starts from. Independent of leases.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from service.datasets import BUILTIN, held, uploaded
from service.datasets.tables import READ_BY_ROWS_BYTES
from service.datasets.uploads import FOLDER, file_format
from service.datasets.weights import held_weights, weights_object
from service.errors import Conflict, NotFound, TrialError
from service.objects import OtherContent, open_objects
from service.settings import Settings
from service.spec import RANKING_METRICS, Recipe, StudySpec
from service.store import Store
from service.store.records import StudyRecord
from service.trained import TrainedModels
from workers.archive.start import Start, read_start
from workers.data import (
    DataSource,
    Fold,
    PrepareOptions,
    RawTable,
    Split,
    load_table,
    make_split,
    nested_splits,
    prepare_alike,
    prepare_all,
)
from workers.data.copies import as_it_is
from workers.data.locked import test_targets
from workers.plain.network import Shape
from workers.stack.crew import Crew
from workers.stack.device_data import DeviceData
from workers.stack.link import Link

PATIENCE_SECONDS = 60.0
"""How long a store of objects that can't be reached is asked again, as the database is."""


@dataclass(frozen=True)
class Prepared:
    """A study's data in all forms that finalizing needs; ``outer`` with nested validation only."""

    table: RawTable
    split: Split
    folds: Sequence[Fold]
    device: DeviceData
    outer: Outer | None = None

    def shape(self, recipe: Recipe) -> Shape:
        """The shape of a recipe's network on this data."""
        on = self.device
        return Shape.of(recipe.effective(), on.inputs, on.outputs, on.categories, on.several)


@dataclass(frozen=True)
class Outer:
    """The outer folds of nested validation: ``parts`` are the data of their searches, with the rows inside as test rows.

    ``device`` has the folds of all parts one below the other, so that lanes of all of them share stacks.
    """

    parts: tuple[Prepared, ...]
    device: DeviceData


class StudyData:
    """Prepares data for one device, and caches that of the last study, whose finalizing often follows its search.

    A ``link`` leads to further devices that networks may be trained on.
    """

    def __init__(self, store: Store, settings: Settings, device: torch.device, link: Link | None = None) -> None:
        self._store = store
        self._link = link
        self._settings = settings
        self._objects = open_objects(settings, patience_seconds=PATIENCE_SECONDS)
        self._models = TrainedModels(store, self._objects)
        self._device = device
        self._last: tuple[int, Prepared] | None = None

    def of(self, study: StudyRecord, spec: StudySpec) -> Prepared:
        """A study's data.

        Raises:
            InvalidInput: The file can't be read (it was readable at submit).
            TrialError: The data does not fit the spec, or the network to start from is gone.
        """
        if self._last is None or self._last[0] != study.id:
            self._last = None  # freed before the next one is loaded
            self._last = (study.id, self._prepare(study, spec))
        return self._last[1]

    def _prepare(self, study: StudyRecord, spec: StudySpec) -> Prepared:
        with self._file(study, spec) as (path, ending, scratch):
            source = replace(self._source(spec), path=path, format=ending, scratch=scratch, most=READ_BY_ROWS_BYTES)
            table = load_table(source)
        if spec.searches == 1:
            splits = [make_split(table, spec.validation, spec.seed, given=spec.data.split is not None)]
        else:
            splits = [*nested_splits(table, spec.validation, spec.seed)]
        _, (whole,) = self._together(spec, table, splits[:1])
        if len(splits) == 1:
            return whole
        device, parts = self._together(spec, table, splits[1:])
        return replace(whole, outer=Outer(tuple(parts), device))

    def _together(self, spec: StudySpec, table: RawTable, splits: Sequence[Split]) -> tuple[DeviceData, list[Prepared]]:
        """Prepare splits, with the folds of all of them on the device."""
        split = replace(splits[0], folds=tuple(pair for each in splits for pair in each.folds))
        start = self._start(spec, table)
        if start is None:
            folds = prepare_all(table, split, PrepareOptions.of(spec.data))
        else:
            folds = prepare_alike(table, split, start.preprocessor, start.target)
        check_defined(spec, table, split, folds)
        on_device = DeviceData.of(
            folds,
            task=table.task,
            outputs=table.outputs,
            device=self._device,
            wanted=wanted_metrics(spec),
            positive=positive_class(spec, table),
            quantile=spec.quantile,
            start=start.weights if start else self._weights(spec),
            crew=None if spec.model.devices == 1 else Crew(spec.model.devices, self._link),
        )
        if len(splits) == 1:
            return on_device, [Prepared(table, split, folds, on_device)]
        each = len(folds) // len(splits)
        places = [slice(index * each, (index + 1) * each) for index in range(len(splits))]
        own = zip(splits, places, strict=True)
        return on_device, [Prepared(table, part, folds[place], on_device.only(place)) for part, place in own]

    def _start(self, spec: StudySpec, table: RawTable) -> Start | None:
        """The network that a fine-tuning study starts from; None for other studies.

        Raises:
            TrialError: The network is gone, or it has changed since the study was submitted.
        """
        earlier = spec.model.start_from
        if earlier is None:
            return None
        try:
            archive = self._store.archives.get(earlier)
            with self._models.archive(earlier) as path:
                content = path.read_bytes()
        except (NotFound, Conflict) as error:
            raise TrialError(f"model.start_from: {error}") from None
        if archive.sha256 != spec.model.start_sha256:
            hashes = f"its archive's SHA-256 is {archive.sha256}, not {spec.model.start_sha256}"
            raise TrialError(f"model.start_from: the model of study {earlier} has changed since the submission; {hashes}")
        return read_start(content, table, target_name(spec, table))

    def _weights(self, spec: StudySpec) -> dict[str, Tensor] | None:
        """The weights of a file that all trials begin with, by the names of the module's own parameters.

        Raises:
            InvalidInput: The file is gone.
            TrialError: It has changed since the study was submitted, or can't be read.
        """
        path = spec.model.weights
        if path is None:
            return None
        with self._file_of_weights(spec, path) as found:
            content = found.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != spec.model.weights_sha256:
            hashes = f"its SHA-256 is {sha256}, not {spec.model.weights_sha256}"
            raise TrialError(f"model.weights: {path} has changed since the submission; {hashes}")
        try:
            return load(content)
        except SafetensorError as error:
            raise TrialError(f"model.weights: {path} can't be read: {error}") from None

    @contextmanager
    def _file_of_weights(self, spec: StudySpec, path: str) -> Iterator[Path]:
        if not self._objects.remote:
            with held_weights(path, self._settings.weights_roots) as found:
                yield found
            return
        sha256 = str(spec.model.weights_sha256)
        with ExitStack() as stack:
            try:
                found = stack.enter_context(self._objects.reading(weights_object(sha256), sha256))
            except (OSError, OtherContent) as error:
                raise TrialError(f"model.weights: {path} can't be read: {error}; submit the study again") from None
            yield found

    def _source(self, spec: StudySpec) -> DataSource:
        """How to read the rows, wherever they are."""
        data = spec.data
        return DataSource(
            task=str(spec.task),
            name=data.dataset if data.dataset in BUILTIN else None,
            target=data.target,
            categorical=data.categorical,
            drop=data.drop,
            groups=data.groups,
            time=data.time,
            split=data.split,
            weights=data.weights,
            layout=spec.model.layout,
            missing=data.missing,
            types=data.types,
            image_size=data.image_size,
            channels={"channels_first": "first", "channels_last": "last"}.get(data.layout, "auto"),
        )

    @contextmanager
    def _file(self, study: StudyRecord, spec: StudySpec) -> Iterator[tuple[Path | None, str, Path | None]]:
        """The study's file, its format, and a directory for what is made of it; no file for a built-in data set.

        The file of a data set never changes; one that is named by its path must not while it is loaded, and is copied where
        its rows will be read later.
        """
        data = spec.data
        if data.dataset in BUILTIN:
            yield None, "csv", None
        elif study.dataset_id is not None:
            record = self._store.datasets.get(study.dataset_id)
            with uploaded(self._objects, record.id, record.format) as path:
                yield path, record.format, path.parent
        else:
            assert data.path is not None, "a study has a built-in data set, an upload or a path"
            with held(data.path, self._settings.data_roots) as path, self._objects.arriving(FOLDER) as scratch:
                scratch.mkdir(parents=True, exist_ok=True)
                ending = file_format(str(path.resolve()), "data.path")
                mapped = ending == "npz" and path.stat().st_size > READ_BY_ROWS_BYTES
                with as_it_is(path, data.path, scratch, copied=mapped) as own:
                    yield own, ending, scratch


def target_name(spec: StudySpec, table: RawTable) -> str | tuple[str, ...]:
    """The target's name, also of data without columns, or the names of several."""
    return table.targets or spec.data.target or "target"


def wanted_metrics(spec: StudySpec) -> tuple[str, ...]:
    """The metrics that a study uses: its objectives, and what early stopping monitors."""
    return (*spec.objectives, *([spec.early_stopping.monitor] if spec.early_stopping else []))


def positive_class(spec: StudySpec, table: RawTable) -> int:
    """The index of the class that `data.positive` names, else of the second of the sorted classes.

    Raises:
        TrialError: No class has this name.
    """
    if spec.data.positive is None:
        return 1
    if spec.data.positive not in table.labels:
        raise TrialError(f"data.positive: there is no class {spec.data.positive!r}; allowed: {', '.join(table.labels)}")
    return table.labels.index(spec.data.positive)


def check_defined(spec: StudySpec, table: RawTable, split: Split, folds: Sequence[Fold]) -> None:
    """Check metrics that are undefined where all targets are equal, as those of ordered, given or grouped parts may be.

    Raises:
        TrialError: A metric that the study uses is undefined on a validation part or on the test part.
    """
    wanted = [name for name in wanted_metrics(spec) if name in (*RANKING_METRICS, "r2")]
    if not wanted:
        return
    parts = {f"validation rows of fold {number}": fold.y_valid for number, fold in enumerate(folds, start=1)}
    if spec.searches == 1:  # else all rows are test rows
        parts["test rows"] = test_targets(table, split)
    for name, targets in parts.items():
        each = targets if targets.ndim == 2 else targets[:, None]
        alike = (each == each[0]).all(0)
        # Areas of labels are means over those where they are defined.
        if alike.all() if table.task == "multilabel" else alike.any():
            what = "belong to one class" if table.task == "classification" else "have the same target"
            raise TrialError(
                f"{wanted[0]} is undefined: all {name} {what}; use another metric, or divide the rows otherwise"
            )
