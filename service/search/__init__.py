"""From a spec to proposals and from parameters to recipes: distributions, samplers that draw in batches. No SQL, no HTTP."""

from service.search.mirror import Search
from service.search.parameters import Params, distributions, recipe

__all__ = ["Params", "Search", "distributions", "recipe"]
