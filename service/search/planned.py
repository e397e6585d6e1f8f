"""Trials whose parameters depend only on their number: enqueued settings, grids, low-discrepancy sequences.

The point of trial n does not depend on the worker that asks it or on restarts; any number of workers therefore covers a
grid without gaps and repetitions.

Reference: Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13 (2012), on Sobol sequences.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from service.search.evidence import drawn_at_random
from service.search.parameters import Drawn, distributions, placed, walked, whole
from service.spec import OFF, GridSampler, QmcSampler
from service.spec.searchable import Searchable

MOST_POINTS = 1_000_000
_MOST_BLOCKS = 4096
_SOBOL_BLOCK = 256


class Planned:
    """The planned parameters of a study's trials by number. Not thread-safe."""

    def __init__(self, spec: Searchable) -> None:
        self._spec = spec
        self._names = sorted(whole(spec))
        self._grid = grid(spec, spec.sampler.points) if isinstance(spec.sampler, GridSampler) else []
        self._ends = list(itertools.accumulate(block.size for block in self._grid))
        self._order = _shuffled(self._ends[-1] if self._ends else 0, spec.seed)
        self._sobol_start, self._sobol_points = 0, np.zeros((0, len(self._names)))

    def __call__(self, number: int) -> Drawn | None:
        """The parameters planned for a trial number; None if the sampler chooses them."""
        if number < len(self._spec.enqueue):
            return enqueued(self._spec, number)
        index = number - len(self._spec.enqueue)
        if drawn_at_random(self._spec, number):
            return _random(self._spec, number)
        if isinstance(self._spec.sampler, QmcSampler):
            places = dict(zip(self._names, self._sobol(index), strict=True))
            return walked(self._spec, lambda name, kind: placed(kind, places[name]))
        if index < len(self._order):
            point = self._point(self._order[index])
            return walked(self._spec, lambda name, _: point[name])
        return None

    def _sobol(self, index: int) -> list[float]:
        """Point ``index`` of the scrambled Sobol sequence, with coordinates in [0, 1); the last block is cached."""
        if not self._names:
            return []
        if not 0 <= index - self._sobol_start < len(self._sobol_points):
            from scipy.stats import qmc  # noqa: PLC0415  # slow to import, and needed only here

            self._sobol_start = index - index % _SOBOL_BLOCK
            engine = qmc.Sobol(len(self._names), scramble=True, seed=self._spec.seed)
            if self._sobol_start:
                engine.fast_forward(self._sobol_start)
            self._sobol_points = engine.random(_SOBOL_BLOCK)
        return [float(place) for place in self._sobol_points[index - self._sobol_start]]

    def _point(self, index: int) -> dict[str, Any]:
        """Point ``index`` of the grid."""
        place = bisect.bisect_right(self._ends, index)
        block = self._grid[place]
        index -= self._ends[place] - block.size
        point = dict(block.fixed)
        for name, values in block.values.items():
            index, place = divmod(index, len(values))
            point[name] = values[place]
        return point


def enqueued(spec: Searchable, index: int) -> Drawn:
    """The parameters of an enqueued trial; those not given are drawn at random from the study's seed."""
    given = spec.enqueue[index]
    draws = random.Random(f"{spec.seed} {index}")

    def choose(name: str, kind: BaseDistribution) -> Any:
        place = draws.random()
        if name in given:
            return _exactly(kind, given[name])
        setting, _, layer = name.rpartition("_")
        if name.startswith("use_") and (used := name.removeprefix("use_")) in given:
            return given[used] != OFF
        if layer.isdigit() and setting in given and setting in spec.settings:
            value = given[setting]
            return _exactly(kind, value[int(layer) - 1] if isinstance(value, tuple) else value)
        return placed(kind, place)

    return walked(spec, choose)


def _random(spec: Searchable, number: int) -> Drawn:
    draws = random.Random(f"{spec.seed} {number} for comparison")
    return walked(spec, lambda _, kind: placed(kind, draws.random()))


def _exactly(kind: BaseDistribution, value: Any) -> Any:
    """A value with the type that its distribution uses: 1 and 1.0 are one choice in a spec, but two in JSON."""
    if isinstance(kind, CategoricalDistribution):
        return next(
            choice for choice in kind.choices if choice == value and isinstance(choice, bool) == isinstance(value, bool)
        )
    return int(value) if isinstance(kind, IntDistribution) else float(value)


@dataclass(frozen=True)
class Block:
    """A part of a grid whose points have the same parameters: the product of ``values``, combined with ``fixed``."""

    fixed: Mapping[str, Any]
    values: Mapping[str, Sequence[Any]]

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(map(len, self.values.values()))


def grid(spec: Searchable, points: int) -> list[Block]:
    """The grid with ``points`` values of every range; a setting is varied only where its condition holds.

    Raises:
        ValueError: The grid has more than `MOST_POINTS` points.
    """
    blocks = list(itertools.islice(_blocks(spec, points), _MOST_BLOCKS + 1))
    if len(blocks) > _MOST_BLOCKS or sum(block.size for block in blocks) > MOST_POINTS:
        raise ValueError(f"has more than {MOST_POINTS:,} points: search fewer settings or reduce points")
    return blocks


def _blocks(spec: Searchable, points: int) -> Iterator[Block]:
    """One block for each combination of the parameters that others depend on."""
    parents = {setting.when.parent for setting in spec.settings.values() if setting.when is not None} | {"depth"}
    waiting: list[dict[str, Any]] = [{}]
    while waiting:
        fixed = waiting.pop()
        values = {name: _values(kind, points) for name, kind in distributions(spec, fixed).items() if name not in fixed}
        deciding = [name for name in values if name in parents or name.startswith("use_")]
        if not deciding:
            yield Block(fixed, values)
        for combination in itertools.product(*(values[name] for name in deciding)) if deciding else ():
            waiting.append(fixed | dict(zip(deciding, combination, strict=True)))


def _values(kind: BaseDistribution, points: int) -> list[Any]:
    """The values of a distribution in a grid, including both ends of a range."""
    if isinstance(kind, CategoricalDistribution):
        return list(kind.choices)
    assert isinstance(kind, IntDistribution | FloatDistribution)
    space = np.geomspace if kind.log else np.linspace
    values = np.clip(space(kind.low, kind.high, points), kind.low, kind.high)
    if isinstance(kind, FloatDistribution):
        return [float(value) for value in values]
    if kind.high - kind.low < points:
        return list(range(kind.low, kind.high + 1))
    return sorted({round(value) for value in values})


def _shuffled(size: int, seed: int) -> list[int]:
    """The order in which a grid is searched: random, so that a part of it is representative of the whole."""
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return order
