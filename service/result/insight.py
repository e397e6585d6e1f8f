"""What the search and the trained networks have to tell beside their scores: importances, effects, weights, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ConfigDict, Field

from service.result.base import Number, Part
from service.result.scores import Spread
from service.spec import Scalar

Course = tuple[Number, ...]
"""One value per epoch of `Curves.epochs`."""


class Importance(Part):
    """Shares of settings in the differences between complete trials, largest first; null where they mean nothing."""

    fanova: Mapping[str, float] | None = Field(description="Shares of the variance of values (fANOVA).")
    ped_anova: Mapping[str, float] | None = Field(description="What it takes to be among the best tenth (PED-ANOVA).")
    trials: int = Field(description="Complete trials that were used.")
    reason: str | None = Field(description="Why there are no shares.")


class Bin(Part):
    """Complete trials that had about the same value of a setting."""

    n: int = Field(description="Trials.")
    mean: Number = Field(description="Of their validation values.")
    standard_error: Number = Field(description="Of the mean; null for a single trial.")


class ChoiceBin(Bin):
    """Trials with one choice; `off` stands for a condition that did not hold, too."""

    choice: Scalar


class RangeBin(Bin):
    """Trials with a value from low to high."""

    low: float
    high: float


class Effect(Part):
    """Mean values of complete trials by what a setting was: where the search went, no experiment in this setting alone."""

    setting: str
    bins: tuple[ChoiceBin | RangeBin, ...]


class LayerWeights(Part):
    """A weight matrix or kernel, as means over seeds."""

    name: str
    norm: float = Field(description="Euclidean.")
    sparsity: float = Field(description="Share of weights of at most 0.001 in absolute value.")


class WeightStatistics(Part):
    """All weight matrices and kernels of a network together, over seeds, and each by itself."""

    norm: Spread = Field(description="Euclidean.")
    sparsity: Spread = Field(description="Share of weights of at most 0.001 in absolute value.")
    layers: tuple[LayerWeights, ...]


class SparsityPoint(Part):
    """What a network scores on validation rows when its smallest weights are set to zero, of all layers together."""

    asked: float = Field(description="Share of weights to be set to zero.")
    sparsity: float = Field(description="Share that is zero.")
    score: Number


class Curves(Part):
    """Learning curves, means over the seeds that were still training; the study's metric is there by its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Course]

    epochs: tuple[int, ...] = Field(description="From 1; at most 200 of them, evenly.")
    seeds: tuple[int, ...] = Field(description="Seeds in the mean of each epoch.")
    best: float = Field(description="Mean epoch whose weights were kept.")
    train_loss: Course = Field(description="While training, with penalties and dropout.")
    loss: Course = Field(description="On validation rows.")

    @classmethod
    def of(cls, epochs: Sequence[int], seeds: Sequence[int], best: float, courses: Mapping[str, Sequence[float]]) -> Curves:
        """Curves of ``train_loss``, ``loss`` and metrics by name, a value per epoch."""
        return cls.model_validate({"epochs": epochs, "seeds": seeds, "best": best, **courses})

    def course(self, name: str) -> Course:
        """One of the curves by name.

        Raises:
            KeyError: There is none.
        """
        match name:
            case "train_loss":
                return self.train_loss
            case "loss":
                return self.loss
            case _:
                return self.__pydantic_extra__[name]
