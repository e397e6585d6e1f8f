"""What a search needs to know of a study, whoever runs its trials: workers (`StudySpec`) or a program (`ExternalSpec`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from service.spec.domain import Choices, Domain, Range, possible_values
from service.spec.enqueue import Enqueued
from service.spec.metrics import Direction
from service.spec.parts import BudgetSpec
from service.spec.pruners import Pruner
from service.spec.samplers import Sampler
from service.spec.setting import Setting


class Searchable(Protocol):
    """A space with its objectives, sampler, pruner and budget."""

    @property
    def settings(self) -> Mapping[str, Setting]:
        """The declarations of all settings in `domains`."""

    @property
    def domains(self) -> Mapping[str, Domain]:
        """The domain of each setting, parents before their children."""

    @property
    def searched(self) -> list[str]:
        """The settings that have more than one possible value, in trials that can occur."""

    @property
    def objectives(self) -> dict[str, Direction]:
        """The directions of all objectives by name, that of the winner first."""

    @property
    def sign(self) -> float:
        """+1 if lower values of the first objective are better, −1 if higher ones are."""

    @property
    def widths(self) -> tuple[int, ...] | None:
        """Numbers of units of the hidden layers where they are fixed, one by one."""

    @property
    def quantile(self) -> float | None:
        """The level of the quantile that is predicted; None for the mean, or a class."""

    @property
    def deepest(self) -> int:
        """The largest number of hidden layers."""

    @property
    def search_from(self) -> tuple[int, ...]:
        """Ids of the studies whose trials the search begins with."""

    @property
    def searches(self) -> int:
        """Number of searches that its trials belong to, each of ``budget.trials``."""

    @property
    def sampler(self) -> Sampler:
        """What proposes trials."""

    @property
    def pruner(self) -> Pruner:
        """What ends bad trials."""

    @property
    def budget(self) -> BudgetSpec:
        """Trials, epochs, time."""

    @property
    def enqueue(self) -> tuple[Enqueued, ...]:
        """Settings of the first trials."""

    @property
    def seed(self) -> int:
        """Of all random numbers."""


def searched(domains: Mapping[str, Domain], settings: Mapping[str, Setting]) -> list[str]:
    """See `Searchable.searched`."""
    return [
        name for name, domain in domains.items() if isinstance(domain, Range | Choices) and _occurs(name, domains, settings)
    ]


def _occurs(name: str, domains: Mapping[str, Domain], settings: Mapping[str, Setting]) -> bool:
    """Whether the condition of a setting can hold, and that of the setting it depends on."""
    when = settings[name].when
    if when is None or when.parent not in domains:
        return True
    values = possible_values(domains[when.parent])
    return (values is None or not set(values).isdisjoint(when.values)) and _occurs(when.parent, domains, settings)
