"""A study's data in all the forms that searching and finalizing need: loaded, divided, preprocessed, on the device.

Knows the store, for uploaded files and for the networks that fine-tuning begins with, and no lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from service.datasets import BUILTIN, resolve_path, stored_path
from service.datasets.uploads import file_format
from service.errors import NotFound, TrialError
from service.settings import Settings
from service.spec import RANKING_METRICS, Recipe, StudySpec
from service.spec.model import LAYOUTS
from service.store import Store
from service.store.records import StudyRecord
from workers.archive.start import Start, read_start
from workers.data import (
    DataSource,
    Fold,
    PrepareOptions,
    RawTable,
    Split,
    load_table,
    make_split,
    prepare_alike,
    prepare_all,
)
from workers.plain.network import Shape
from workers.stack.device_data import DeviceData


@dataclass(frozen=True)
class Prepared:
    """A study's data in all the forms that finalizing needs."""

    table: RawTable
    split: Split
    folds: Sequence[Fold]
    device: DeviceData

    def shape(self, recipe: Recipe) -> Shape:
        """Of the network that a recipe asks for on this data."""
        return Shape.of(recipe.effective(), self.device.inputs, self.device.outputs, self.device.categories)


class StudyData:
    """Prepares data for one device, and keeps that of the last study: its finalizing often follows its search."""

    def __init__(self, store: Store, settings: Settings, device: torch.device) -> None:
        self._store = store
        self._settings = settings
        self._device = device
        self._last: tuple[int, Prepared] | None = None

    def of(self, study: StudyRecord, spec: StudySpec) -> Prepared:
        """A study's data.

        Raises:
            InvalidInput: The file can't be read (it was readable at submit).
            TrialError: The data is not what the spec asks for, or the network to begin with is gone.
        """
        if self._last is None or self._last[0] != study.id:
            self._last = None  # freed before the next one takes memory
            self._last = (study.id, self._prepare(study, spec))
        return self._last[1]

    def _prepare(self, study: StudyRecord, spec: StudySpec) -> Prepared:
        table = load_table(self._source(study, spec))
        split = make_split(table, spec.validation, spec.seed, given=spec.data.split is not None)
        start = self._start(spec, table)
        if start is None:
            folds = prepare_all(table, split, PrepareOptions.of(spec.data))
        else:
            folds = prepare_alike(table, split, start.preprocessor, start.target)
        check_defined(spec, folds)
        on_device = DeviceData.of(
            folds,
            task=table.task,
            outputs=table.outputs,
            device=self._device,
            wanted=wanted_metrics(spec),
            positive=positive_class(spec, table),
            start=start.weights if start else None,
        )
        return Prepared(table, split, folds, on_device)

    def _start(self, spec: StudySpec, table: RawTable) -> Start | None:
        """What a fine-tuning study begins with.

        Raises:
            TrialError: That network is gone, or another has taken its place since the study was submitted.
        """
        earlier = spec.model.start_from
        if earlier is None:
            return None
        try:
            archive = self._store.archives.get(earlier)
        except NotFound as error:
            raise TrialError(f"model.start_from: {error}") from None
        if archive.sha256 != spec.model.start_sha256:
            said = f"its archive's SHA-256 is {archive.sha256}, not {spec.model.start_sha256}"
            raise TrialError(f"model.start_from: the model of study {earlier} is not the one of the submit; {said}")
        return read_start(archive.content, table, target_name(spec))

    def _source(self, study: StudyRecord, spec: StudySpec) -> DataSource:
        data = spec.data
        common: dict[str, Any] = {"task": str(spec.task), "categorical": data.categorical, "drop": data.drop}
        common |= {"groups": data.groups, "time": data.time, "split": data.split}
        common["layout"] = LAYOUTS[spec.model.word]
        if data.dataset in BUILTIN:
            return DataSource(name=data.dataset, **common)
        if study.dataset_id is not None:
            record = self._store.datasets.get(study.dataset_id)
            path = stored_path(self._settings.datasets_dir, record.id, record.format)
            return DataSource(path=path, format=record.format, target=data.target, **common)
        assert data.path is not None, "a study has a built-in data set, an upload or a path"
        path = resolve_path(data.path, self._settings.data_roots)
        return DataSource(path=path, format=file_format(str(path), "data.path"), target=data.target, **common)


def target_name(spec: StudySpec) -> str:
    """What the target is called, also where the data has no columns."""
    return spec.data.target or "target"


def wanted_metrics(spec: StudySpec) -> tuple[str, ...]:
    """The metrics that a study looks at: its objectives, and what early stopping monitors."""
    return (*spec.objectives, *([spec.early_stopping.monitor] if spec.early_stopping else []))


def positive_class(spec: StudySpec, table: RawTable) -> int:
    """The index of the class that `data.positive` names, else of the second of the sorted classes.

    Raises:
        TrialError: No class has this name.
    """
    if spec.data.positive is None:
        return 1
    if spec.data.positive not in table.labels:
        raise TrialError(f"data.positive: there is no class {spec.data.positive!r}, only {', '.join(table.labels)}")
    return table.labels.index(spec.data.positive)


def check_defined(spec: StudySpec, folds: Sequence[Fold]) -> None:
    """An area under a curve needs rows of two classes at least, which ordered or given parts may lack.

    Raises:
        TrialError: A metric that the study looks at has no value on some validation part.
    """
    areas = [name for name in wanted_metrics(spec) if name in RANKING_METRICS]
    for number, fold in enumerate(folds, start=1):
        if areas and len(np.unique(fold.y_valid)) < 2:
            raise TrialError(f"{areas[0]} has no value: all validation rows of part {number} are of one class")
