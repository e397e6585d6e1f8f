"""Findings about the search and the trained networks besides scores: importances, effects, weights, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ConfigDict, Field

from service.result.base import Number, Part
from service.result.scores import Spread
from service.spec import Scalar

Course = tuple[Number, ...]
"""One value per epoch of `Curves.epochs`."""


class WarmStart(Part):
    """What the trials of earlier studies gained: the study's first trials, drawn by them and at random in turn."""

    studies: tuple[int, ...] = Field(description="Ids of the earlier studies.")
    informed: Number = Field(description="Median of the best values of the trials drawn by earlier ones.")
    random: Number = Field(description="Median of the best values of the trials drawn at random.")
    informed_trials: int = Field(description="Number of these trials that have a value.")
    random_trials: int


class Importance(Part):
    """Importances of settings for the values of complete trials, largest first; null where they are not meaningful."""

    fanova: Mapping[str, float] | None = Field(description="Shares of the variance of values (fANOVA).")
    ped_anova: Mapping[str, float] | None = Field(
        description="Importance for being among the best tenth of the trials (PED-ANOVA)."
    )
    trials: int = Field(description="Number of complete trials used.")
    reason: str | None = Field(description="Why there are no importances.")


class Bin(Part):
    """Complete trials with about the same value of a setting."""

    n: int = Field(description="Number of trials.")
    mean: Number = Field(description="Mean of their validation values.")
    standard_error: Number = Field(description="Standard error of the mean; null for a single trial.")


class ChoiceBin(Bin):
    """Trials with one choice; `off` also stands for a condition that did not hold."""

    choice: Scalar


class RangeBin(Bin):
    """Trials with a value from low to high."""

    low: float
    high: float


class Effect(Part):
    """Mean values of complete trials by the value of a setting. The trials follow the search: no controlled experiment."""

    setting: str
    bins: tuple[ChoiceBin | RangeBin, ...]


class LayerWeights(Part):
    """Statistics of a weight matrix or kernel, as means over seeds."""

    name: str
    norm: float = Field(description="Euclidean norm.")
    sparsity: float = Field(description="Share of weights of at most 0.001 in absolute value.")


class WeightStatistics(Part):
    """Statistics over seeds of all weight matrices and kernels of a network together, and of each by itself."""

    norm: Spread = Field(description="Euclidean norm.")
    sparsity: Spread = Field(description="Share of weights of at most 0.001 in absolute value.")
    layers: tuple[LayerWeights, ...]


class SparsityPoint(Part):
    """The score of a network on validation rows with the smallest weights of all layers together set to zero."""

    asked: float = Field(description="Share of weights to be set to zero.")
    sparsity: float = Field(description="Share that is zero.")
    score: Number


class Curves(Part):
    """Learning curves, means over the seeds still in training; the study's metric is a further field under its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Course]

    epochs: tuple[int, ...] = Field(description="1-based; at most 200 of them, evenly spaced.")
    seeds: tuple[int, ...] = Field(description="Number of seeds in the mean of each epoch.")
    best: float = Field(description="Epoch whose weights were kept, mean over seeds.")
    train_loss: Course = Field(description="Training loss, with penalties and dropout.")
    loss: Course = Field(description="Loss on validation rows.")

    @classmethod
    def of(cls, epochs: Sequence[int], seeds: Sequence[int], best: float, courses: Mapping[str, Sequence[float]]) -> Curves:
        """Curves of ``train_loss``, ``loss`` and metrics by name, a value per epoch."""
        return cls.model_validate({"epochs": epochs, "seeds": seeds, "best": best, **courses})

    def course(self, name: str) -> Course:
        """A curve by its name.

        Raises:
            KeyError: There is no such curve.
        """
        match name:
            case "train_loss":
                return self.train_loss
            case "loss":
                return self.loss
            case _:
                return self.__pydantic_extra__[name]
