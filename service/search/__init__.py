"""From a spec to proposals and from parameters to recipes: distributions, samplers that draw in batches. No SQL, no HTTP."""

from service.search.evidence import Evidence, Past, drawn_at_random
from service.search.interleaved import Interleaved
from service.search.mirror import Search
from service.search.parameters import Params, distributions, recipe, values

__all__ = ["Evidence", "Interleaved", "Params", "Past", "Search", "distributions", "drawn_at_random", "recipe", "values"]
