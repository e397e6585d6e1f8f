"""From a spec to proposals and back: Optuna distributions, samplers that draw in batches, recipes. No SQL, no HTTP."""

from service.search.mirror import Search
from service.search.parameters import Params, distributions, recipe

__all__ = ["Params", "Search", "distributions", "recipe"]
