"""Facts of the built-in data sets, which scikit-learn brings along; a test compares them with the real ones."""

from __future__ import annotations

from collections.abc import Mapping

from service.datasets.files import Column, TableInfo


def _table(rows: int, features: int, distinct: int, *, whole: bool = True) -> TableInfo:
    names = [f"x{index}" for index in range(features)]
    columns = [Column(name, "numeric", 0, 0, False) for name in names]
    return TableInfo(rows, (*columns, Column("target", "numeric", 0, distinct, whole)), (features,))


BUILTIN: Mapping[str, TableInfo] = {
    "diabetes": _table(442, 10, 214),
    "breast_cancer": _table(569, 30, 2),
    "digits": _table(1797, 64, 10),
    "wine": _table(178, 13, 3),
}
