"""A conditional space as one without conditions, for samplers that draw all parameters jointly.

Gaussian processes, evolution strategies, genetic and Lipschitz methods need points with a fixed number of coordinates. Here
every point has all parameters; those whose conditions do not hold are not passed on to the trial. A parameter that a trial
does not have, because it was not drawn here, is set to the middle of its range.
"""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from service.search.parameters import Drawn, Params, placed, walked, whole
from service.spec.searchable import Searchable


class WholeSpace:
    """The parameters of a study without conditions; ``numeric`` represents choices by numbers as well."""

    def __init__(self, spec: Searchable, *, numeric: bool) -> None:
        self._spec = spec
        self._kinds = whole(spec)
        self._numeric = numeric
        self.distributions = {name: self._shown(kind) for name, kind in self._kinds.items()}

    def trial(self, point: Params) -> Drawn:
        """The trial's parameters at a point."""
        return walked(self._spec, lambda name, kind: self._real(kind, point[name]))

    def point(self, params: Params) -> dict[str, Any]:
        """The point of a trial with these parameters."""
        return {
            name: self._coordinate(kind, params[name]) if name in params else self._coordinate(kind, placed(kind, 0.5))
            for name, kind in self._kinds.items()
        }

    def _shown(self, kind: BaseDistribution) -> BaseDistribution:
        if self._numeric and isinstance(kind, CategoricalDistribution):
            return FloatDistribution(0.0, float(len(kind.choices)))
        return kind

    def _real(self, kind: BaseDistribution, value: Any) -> Any:
        if self._numeric and isinstance(kind, CategoricalDistribution):
            return placed(kind, value / len(kind.choices))
        return value

    def _coordinate(self, kind: BaseDistribution, value: Any) -> Any:
        if self._numeric and isinstance(kind, CategoricalDistribution):
            return kind.to_internal_repr(value) + 0.5
        return value
