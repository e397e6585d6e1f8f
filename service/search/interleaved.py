"""Several searches of one study whose trials are one sequence, as nested validation has them. No SQL, no HTTP.

To its worker `Interleaved` is like one `Search`: it proposes trials, and knows by a trial's number whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna.distributions import BaseDistribution

from service.search.mirror import Search
from service.search.parameters import Drawn, Params
from service.spec.nested import place
from service.spec.searchable import Searchable


class Interleaved:
    """The searches of a study, each with a sampler of its own seed. Not thread-safe.

    Which trial numbers a worker gets is known only once they are booked. As any ``n`` numbers in a row have at most
    ``n / searches``, rounded up, of one search, this many are drawn of each, and a number takes the one that its own
    number determines; those that nobody takes are discarded.
    """

    def __init__(self, spec: Searchable, seeds: Sequence[int]) -> None:
        self._searches = [Search(spec, seed=seed) for seed in seeds]
        self._drawn: list[list[Drawn]] = [[] for _ in seeds]

    def propose(self, n: int) -> list[Drawn]:
        """Draw the parameters of ``n`` trials; `planned` has them by number. Call `adopt` next."""
        each = -(-n // len(self._searches))
        self._drawn = [search.propose(each) for search in self._searches]
        return (self._drawn[0] * len(self._searches))[:n]

    def planned(self, number: int) -> Drawn:
        """The parameters of a trial of the last proposals, by its number; planned ones come first."""
        search, own = place(number, len(self._searches))
        drawn = self._drawn[search]
        return self._searches[search].planned(own) or drawn[own % len(drawn)]

    def adopt(self, numbers: Sequence[int]) -> None:
        """Assign the study's trial ``numbers`` to the last proposals; the remaining ones are discarded."""
        for which, search in enumerate(self._searches):
            taken: list[int | None] = [None] * len(self._drawn[which])
            for found, own in (place(number, len(self._searches)) for number in numbers):
                if found == which:
                    taken[own % len(taken)] = own
            search.adopt(taken)

    def tell(
        self,
        number: int,
        state: str,
        value: float | None,
        epochs: int,
        drawn: tuple[Params, Mapping[str, BaseDistribution]],
        also: Sequence[float] = (),
    ) -> None:
        """Tell the search that a trial belongs to how it ended; arguments as of `Search.tell`."""
        search, own = place(number, len(self._searches))
        self._searches[search].tell(own, state, value, epochs, drawn, also)
