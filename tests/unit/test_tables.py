"""Tables by the words of a spec have an entry for each word: a new one cannot be taken for another."""

from __future__ import annotations

from collections.abc import Collection
from typing import get_args

import pytest

from service.report.pdf import _COLOURS
from service.report.scene import Role
from service.spec import RANKING_METRICS, SETTINGS, Space
from service.spec.metrics import Metric, Task
from service.spec.model import _SHAPES, LAYOUTS, NORMALIZATIONS
from service.spec.recipe import _GROWTH
from service.spec.space import PRESETS
from workers.scoring.metrics import AREAS, NAMES

FAMILIES = SETTINGS["family"].words
TABLES: list[tuple[str, Collection[str], Collection[str]]] = [
    ("shapes", _SHAPES, FAMILIES),
    ("growth of layers", _GROWTH, FAMILIES),
    ("layouts", LAYOUTS, FAMILIES),
    ("normalizations", NORMALIZATIONS, FAMILIES),
    ("presets", PRESETS, get_args(Space.model_fields["preset"].annotation)),
    ("areas under curves", AREAS, RANKING_METRICS),
    ("metrics by task", NAMES, get_args(Task)),
    ("metrics computed", {*AREAS, *(name for names in NAMES.values() for name in names)}, {"loss", *get_args(Metric)}),
    ("colours in print", _COLOURS, get_args(Role)),
]


@pytest.mark.parametrize(("table", "words"), [case[1:] for case in TABLES], ids=[case[0] for case in TABLES])
def test_a_table_has_an_entry_for_every_word(table: Collection[str], words: Collection[str]) -> None:
    assert set(table) == set(words)
