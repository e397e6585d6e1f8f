"""Finals that fit into what a time budget has left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from service.spec import StudySpec
from workers.answer.affordable import affordable

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def spec(**budget: Any) -> StudySpec:
    return StudySpec.model_validate({"data": {"dataset": "diabetes"}, "budget": {"epochs": 10, **budget}})


@pytest.mark.parametrize(
    ("seconds", "epochs", "expected"),
    [(None, 1, (5, 5)), (100.0, 3000, (5, 5)), (100.0, 400, (3, 3)), (100.0, 210, (2, 2)), (100.0, 5, (1, 2))],
)
def test_the_finals_shrink_with_what_is_left(seconds: float | None, epochs: int, expected: tuple[int, int]) -> None:
    """Of 100 seconds 60 are spent: the finals may take two thirds of the search's epochs."""
    study: Any = SimpleNamespace(started_at=BEGAN, now=BEGAN + timedelta(seconds=60), epochs=epochs)
    found = affordable(spec(seconds=seconds), study).budget
    assert (found.finalists, found.seeds) == expected
