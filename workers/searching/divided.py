"""Which rows the trials of a study's searches train on: with nested validation, those outside of their outer fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.spec.nested import place
from workers.seeds import trial_seeds
from workers.stack.device_data import DeviceData
from workers.study_data import Prepared


@dataclass(frozen=True)
class Divided:
    """``data`` are on the device: of the search on all rows, and those of all outer folds together, if there are some."""

    data: Sequence[DeviceData]
    searches: int

    @classmethod
    def of(cls, prepared: Prepared) -> Divided:
        """From a study's data."""
        if prepared.outer is None:
            return cls([prepared.device], 1)
        return cls([prepared.device, prepared.outer.device], 1 + len(prepared.outer.parts))

    @property
    def folds(self) -> int:
        """Lanes of a trial."""
        return self.data[0].folds

    def outer_fold(self, number: int) -> int | None:
        """The outer fold, counted from 1, whose rows a trial does not see; None for one of the search on all rows."""
        return place(number, self.searches)[0] or None

    def lanes(self, study_seed: int, number: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """The place of a trial's data, and the (fold, seed) of its lanes there."""
        outer, seeds = self.outer_fold(number), trial_seeds(study_seed, number, self.folds)
        if outer is None:
            return 0, seeds
        return 1, tuple((fold + (outer - 1) * self.folds, seed) for fold, seed in seeds)
