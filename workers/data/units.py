"""Units of rows that a split must keep together: copies of each other, and rows of one group.

Shapes: `r` rows, `u` units. Independent of parts and folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """``owner`` (r,) is each row's unit, ``first`` (u,) each unit's first row, ``sizes`` (u,) its number of rows.

    Units are numbered in the order of their first rows.
    """

    owner: Indices
    first: Indices
    sizes: Indices

    def rows(self, units: Indices) -> Indices:
        """All rows of the given units, in ascending order."""
        chosen = np.zeros(len(self.first), dtype=bool)
        chosen[units] = True
        return np.flatnonzero(chosen[self.owner]).astype(np.int64)


def copies(hashes: NDArray[np.uint64]) -> Units:
    """One unit per distinct hash."""
    return _numbered(hashes)


def joined(units: Units, groups: Indices) -> Units:
    """Join units that share a group, directly or through other units; ``groups`` is (r,), with −1 for no group."""
    count, most = len(units.first), int(groups.max(initial=-1)) + 1
    grouped = np.flatnonzero(groups >= 0)
    ends = (units.owner[grouped], count + groups[grouped])
    graph = coo_array((np.ones(len(grouped), dtype=np.int8), ends), shape=(count + most, count + most))
    _, component = connected_components(graph, directed=False)
    return _numbered(component[units.owner])


def _numbered(keys: NDArray[np.generic]) -> Units:
    _, first, owner = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    renumbered = rank[owner].astype(np.int64)
    return Units(renumbered, first[order].astype(np.int64), np.bincount(renumbered, minlength=len(order)))
