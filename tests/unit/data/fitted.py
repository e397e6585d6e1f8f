"""What the features of a fitted document are, for tests that look at single ones."""

from __future__ import annotations

from workers.data import Fitted


def names_of(fitted: Fitted) -> tuple[str, ...]:
    """A name for every feature of a table, in order: columns, flags of missing values, levels, codes without a level."""
    numbers, words = fitted["numbers"], fitted["words"]
    names = [*numbers["columns"], *(f"{numbers['columns'][index]} is missing" for index in numbers["flagged"])]
    for column, levels, shared, size in zip(*(words[key] for key in ("columns", "levels", "shared", "sizes")), strict=True):
        own = [f"{column} = {level}" for level, code in levels.items() if code != shared]
        own += [f"{column} = other"] if shared >= 0 else []
        names += [*own, *(f"{column}: unused {place}" for place in range(1, size - len(own) + 1))]
    return tuple(names)
