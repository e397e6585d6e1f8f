"""Values as people have them, as the numbers and codes that preprocessing reads: one rule for training and prediction.

Columns are lists, arrays or pandas Series, by name. Missing are None, NaN and what pandas calls so; in a column of numbers
every text that is none; in one of categories usual words for a missing value, unless training knew them as categories.
Shapes: `r` rows, `n` numeric and `m` categorical columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, Sequence[Any]]

LARGEST = float(np.finfo(np.float32).max)
_MISSING_TEXTS = ("<NA>", "NaT")
WORDS_FOR_MISSING = frozenset(
    "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")  # noqa: SIM905
)
"""What pandas takes for missing in a column of numbers."""


def is_missing(value: Any) -> bool:
    """Whether a value is none."""
    return value is None or str(value) in _MISSING_TEXTS or (isinstance(value, float | np.floating) and math.isnan(value))


def number_of(value: Any) -> float:
    """A value as a number; NaN where it is missing or none.

    >>> number_of("1.5"), number_of(True), number_of("1_0"), number_of("x")
    (1.5, 1.0, nan, nan)
    """
    try:
        return math.nan if is_missing(value) or (isinstance(value, str) and "_" in value) else float(value)
    except (TypeError, ValueError):
        return math.nan


def text_of(value: object) -> str:
    """A category's text: a whole number is written the same whether it was read as 1 or as 1.0."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def texts_of(value: Any) -> Iterator[str]:
    """The texts that may stand for a value in training: 1, 1.0 and "1.0" are one category, "true" and True another."""
    yield text_of(value)
    if isinstance(value, str):
        yield value.strip().capitalize()
        number = number_of(value)
        if math.isfinite(number):
            yield text_of(number)


def without(columns: Any, names: Sequence[str], missing: Sequence[str]) -> Columns:
    """The named columns, with None for the values whose text is one of ``missing``."""

    def kept(value: Any) -> Any:
        return None if not is_missing(value) and text_of(value) in missing else value

    return {name: mapped(columns[name], kept) for name in names}


def numbers(columns: Any, names: Sequence[str]) -> NDArray[np.float64]:
    """(r, n) numbers of the named columns; NaN for what is missing, no number, or too large for a float32."""
    x = np.stack([_numbers(columns[name]) for name in names], axis=1) if names else np.zeros((0, 0))
    return np.where(np.abs(x) <= LARGEST, x, np.nan)


def _numbers(values: Any) -> NDArray[np.float64]:
    if getattr(getattr(values, "dtype", None), "kind", "O") in "iufb":
        # The nullable types of pandas take `na_value`, numpy's have nothing missing but NaN.
        plain = values.to_numpy(dtype=np.float64, na_value=np.nan) if hasattr(values, "to_numpy") else values
        return np.asarray(plain, dtype=np.float64)
    return np.array(mapped(values, number_of), dtype=np.float64)


def codes(columns: Any, words: Mapping[str, Any]) -> NDArray[np.int64]:
    """(r, m) the code of every category; −1 for one that training never saw, where rare ones share no code.

    ``words`` has, for each of its ``columns``, the text that ``fill`` puts into gaps, the code of each of its ``levels``,
    and the ``shared`` code of rare ones (−1 for none).
    """
    each = zip(*(words[key] for key in ("columns", "fill", "levels", "shared")), strict=True)
    found = [_codes(columns[name], fill, levels, shared) for name, fill, levels, shared in each]
    return np.stack(found, axis=1) if found else np.zeros((0, 0), dtype=np.int64)


def _codes(values: Any, fill: str, levels: Mapping[str, int], shared: int) -> NDArray[np.int64]:
    def code(value: Any) -> int:
        texts = [fill] if is_missing(value) else [*texts_of(value)]
        texts += [fill] if value in WORDS_FOR_MISSING else []
        return next((levels[text] for text in texts if text in levels), shared)

    return np.array(mapped(values, code), dtype=np.int64)


def mapped(values: Any, function: Callable[[Any], Any]) -> list[Any]:
    """The function's value for each of ``values``, called once for every distinct one.

    The type counts: 1, 1.0 and True are equal, but not the same text.
    """
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    keys = list(zip(map(type, listed), listed, strict=True))
    known = {key: function(key[1]) for key in dict.fromkeys(keys)}
    return [known[key] for key in keys]
