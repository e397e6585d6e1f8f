"""What of new rows a model does not understand: values that training never saw, and such as are no numbers or times."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .columns import WORDS_FOR_MISSING, is_missing, mapped, number_of, texts_of
from .preprocessing import needed
from .readings import understood

_LONGEST = 40


def doubts(rows: Any, fitted: Mapping[str, Any]) -> list[str]:
    """Sentences, one for each column of a table with such values, with how many there are and one of them.

    Raises:
        CannotPredict: A column is missing.
    """
    if fitted["kind"] != "table":
        return []
    readings, words = fitted.get("readings", {}), fitted["words"]
    levels = dict(zip(words["columns"], words["levels"], strict=True))
    told = []
    for name, values in needed(rows, fitted, raw=True).items():
        good: Callable[[Any], bool]
        if name in readings:
            good, what = partial(understood, readings[name]), "not in the form of training"
        elif name in levels:
            good, what = partial(_known, levels[name]), "unknown to training"
        else:
            good, what = _is_number, "no numbers"
        strange = _strange(values, good)
        if strange:
            meaning = "an unknown category" if name in levels else "missing"
            count, example = len(strange), str(strange[0])[:_LONGEST]
            verb = "value is" if count == 1 else "values are"
            told.append(f"column {name!r}: {count} {verb} {what}, such as {example!r}, taken as {meaning}")
    return told


def _known(levels: Mapping[str, int], value: Any) -> bool:
    return any(text in levels for text in texts_of(value))


def _is_number(value: Any) -> bool:
    return not math.isnan(number_of(value))


def _strange(values: Any, good: Callable[[Any], bool]) -> list[Any]:
    """The values that are neither missing nor good."""

    def strange(value: Any) -> bool:
        empty = isinstance(value, str) and (value in WORDS_FOR_MISSING or not value.strip())
        return not empty and not is_missing(value) and not good(value)

    if getattr(getattr(values, "dtype", None), "kind", "O") in "iufb" and good is _is_number:
        return []
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    return [value for value, bad in zip(listed, mapped(values, strange), strict=True) if bad]
