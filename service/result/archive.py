"""The documents in a model's archive: recipe.json and preprocessing.json.

`workers.plain`, which the archive ships, reads them as plain values and imports nothing of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from service.result.base import Part
from service.result.execution import ChosenNetwork
from service.result.scores import Interval, Spread
from service.spec.metrics import Direction, Metric, Task


class ArchivedStudy(Part):
    """Where a model comes from."""

    id: int
    name: str


class ArchivedScores(Part):
    """What is known of a model."""

    this_network: float = Field(description="Validation score; of networks that were trained again, that of the search's.")
    valid: Spread = Field(description="Of its setting over seeds, on validation rows.")
    test: Interval | None = Field(description="Of its setting, on test rows.")


class ArchivedData(Part):
    """The data of its study."""

    rows: int
    hash: str


class ArchivedStart(Part):
    """The network that training began with."""

    study: int
    sha256: str | None


class NetworkShape(Part):
    """All that decides a network's graph."""

    family: str
    inputs: tuple[int, ...] = Field(description="Shape of an example.")
    outputs: int
    settings: Mapping[str, Any] = Field(description="Those that the family reads and that are not at its default.")
    categories: tuple[int, ...] = Field(description="Levels of each one-hot category; they are the last inputs.")


class ArchivedModule(Part):
    """A module of the user's own, whose code is not in the archive."""

    name: str = Field(description="`package.module:Class`; its arguments are settings of the model, as `args.NAME`.")
    source_sha256: str | None = Field(description="Of the file that defined it in training.")


class TargetUnit(Part):
    """A standardized prediction z stands for z · scale + mean; 1 and 0 for classes and labels; of several targets each."""

    mean: float | tuple[float, ...]
    scale: float | tuple[float, ...]


class ArchiveDocument(Part):
    """recipe.json."""

    format: int
    study: ArchivedStudy
    task: Task
    target: str | tuple[str, ...] = Field(description="Its name, or those of several, in the order of the outputs.")
    classes: tuple[str, ...]
    levels: tuple[tuple[str, str], ...] | None = Field(
        None, description="Only of several labels: the two values of each; an output is the logit of the second."
    )
    metric: Metric
    quantile: float | None = Field(None, description="Level of the quantile that is predicted; null for the mean.")
    direction: Direction
    chosen: ChosenNetwork
    scores: ArchivedScores
    data: ArchivedData
    start: ArchivedStart | None = Field(None, description="Only after fine-tuning.")
    model: NetworkShape
    module: ArchivedModule | None = Field(None, description="Only of a module of the user's own.")
    networks: int = Field(1, description="Networks of this shape, whose predictions are averaged.")
    temperature: float = Field(1.0, description="Divides the outputs of classes or labels before they are probabilities.")
    class_biases: tuple[float, ...] | None = Field(
        None,
        description="Added to the undivided outputs of the classes before the largest one determines the class; of labels, "
        "before their sign does.",
    )
    target_scale: TargetUnit
    recipe: Mapping[str, Any] = Field(description="Settings that matter.")
    versions: Mapping[str, str] = Field(description="What it was trained with.")


class Scaler(Part):
    """z = (f(x) − shift) / scale of each column, f by ``kind``; `robust`: then z / √(1 + (z/3)²)."""

    kind: Literal["standard", "robust", "minmax", "quantile", "log", "none"]
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...] | None = Field(description="(q, columns) of the training rows.")


class NumericColumns(Part):
    """How numeric columns become features."""

    columns: tuple[str, ...]
    fill: tuple[float, ...] = Field(description="Replaces a missing value.")
    scaler: Scaler
    flagged: tuple[int, ...] = Field(description="Columns with a 0/1 feature that tells whether the value is missing.")


class CategoricalColumns(Part):
    """How categorical columns become one-hot features."""

    columns: tuple[str, ...]
    fill: tuple[str, ...] = Field(description="Replaces a missing value.")
    levels: tuple[Mapping[str, int], ...] = Field(description="The code of each level seen in training.")
    shared: tuple[int, ...] = Field(description="The code of rare levels; −1 where none is rare.")
    sizes: tuple[int, ...] = Field((), description="Number of codes, unused ones included.")


class TablePreprocessing(Part):
    """preprocessing.json of a table."""

    kind: Literal["table"]
    version: Literal[1]
    missing: tuple[str, ...] = Field((), description="Texts that stand for a missing value.")
    readings: Mapping[str, Mapping[str, Any]] = Field({}, description="How columns are read that are not read as they are.")
    numbers: NumericColumns
    words: CategoricalColumns
    image: Mapping[str, Any] | None = Field(None, description="Size and mode of images that come from image files.")


class ArrayPreprocessing(Part):
    """preprocessing.json of images and series: each channel by its training mean and deviation."""

    kind: Literal["array"]
    version: Literal[1]
    layout: Literal["image", "sequence"]
    channels: Literal["auto", "first", "last"] = Field("auto", description="Where images have their channels.")
    image: Mapping[str, Any] | None = Field(None, description="Size and mode of images that come from image files.")
    mean: tuple[float, ...]
    scale: tuple[float, ...]


Preprocessing = TablePreprocessing | ArrayPreprocessing

_EITHER: TypeAdapter[Preprocessing] = TypeAdapter(Annotated[Preprocessing, Field(discriminator="kind")])


def preprocessing_of(document: Mapping[str, Any]) -> Preprocessing:
    """The typed document.

    Raises:
        pydantic.ValidationError: It is no such document, or one of a later version.
    """
    return _EITHER.validate_python(document)
