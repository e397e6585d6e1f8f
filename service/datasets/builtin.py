"""Descriptions of the built-in data sets, which are scikit-learn's; a test compares them with the data.

They are static, so that the API can validate a study without importing scikit-learn.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from service.datasets.tables import Column, TableInfo

TARGET = "target"


@dataclass(frozen=True)
class BuiltinFacts(TableInfo):
    """Description of a built-in data set: its table, its task, and the names of its classes by index."""

    task: Literal["classification", "regression"]
    classes: tuple[str, ...]
    image: tuple[int, int] | None = None
    """Height and width if the features are the pixels of an image, in row-major order."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all columns except the target."""
        return tuple(column.name for column in self.columns if column.name != TARGET)


def _facts(
    rows: int,
    distinct: Sequence[int],
    *,
    whole: Container[int] = (),
    classes: Sequence[str] = (),
    targets: int = 0,
    image: tuple[int, int] | None = None,
) -> BuiltinFacts:
    """The description for the numbers of distinct values of all features.

    Args:
        rows: Number of rows.
        distinct: Number of distinct values of each feature.
        whole: Indices of the features with integer values only.
        classes: Names of the classes; empty for regression.
        targets: Number of distinct targets in regression.
        image: Height and width, if the features are pixels.
    """
    columns = [Column(f"x{index}", "numeric", 0, count, index in whole) for index, count in enumerate(distinct)]
    columns.append(Column(TARGET, "numeric", 0, targets or len(classes), True))
    task: Literal["classification", "regression"] = "classification" if classes else "regression"
    return BuiltinFacts(rows, tuple(columns), (len(distinct),), task, tuple(classes), image)


_DIABETES = (58, 2, 163, 100, 141, 302, 63, 66, 184, 56)
_CANCER = (
    *(456, 479, 522, 539, 474, 537, 537, 542, 432, 499),
    *(540, 519, 533, 528, 547, 541, 533, 507, 498, 545),
    *(457, 511, 514, 544, 411, 529, 539, 492, 500, 535),
)
_DIGITS = (
    *(1, 9, 17, 17, 17, 17, 17, 16),
    *(3, 17, 17, 17, 17, 17, 17, 13),
    *(3, 17, 17, 17, 17, 17, 17, 8),
    *(2, 16, 17, 17, 17, 17, 16, 2),
    *(1, 15, 17, 17, 17, 17, 15, 1),
    *(5, 17, 17, 17, 17, 17, 17, 7),
    *(4, 15, 17, 17, 17, 17, 17, 12),
    *(2, 10, 17, 17, 17, 17, 17, 17),
)
_WINE = (126, 133, 79, 63, 53, 97, 132, 39, 101, 132, 78, 122, 121)

BUILTIN: Mapping[str, BuiltinFacts] = {
    "diabetes": _facts(442, _DIABETES, targets=214),
    "breast_cancer": _facts(569, _CANCER, classes=("malignant", "benign")),
    "digits": _facts(1797, _DIGITS, whole=range(64), classes=[str(digit) for digit in range(10)], image=(8, 8)),
    "wine": _facts(178, _WINE, whole=(4, 12), classes=("class_0", "class_1", "class_2")),
}
