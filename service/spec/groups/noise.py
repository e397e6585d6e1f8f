"""Noise in training, for any kind of data: on features, on labels, and mixtures of examples."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting


class Noise(Frozen):
    """Noise in training, for any kind of data: on features, on labels, and mixtures of examples."""

    label_smoothing: Annotated[Domain | None, Setting(
        group="noise", kind="float", low=0.0, high=0.95, neutral=0.0, off=True, regularizer=True, task="classification",
        search=Fixed(value=OFF), advised=Range(low=0.02, high=0.3, off=True),
        doc="Fraction of a label's weight that is spread over all classes, of several labels over the two values of each (Szegedy et al. 2016).")] = None
    mixup: Annotated[Domain | None, Setting(
        group="noise", kind="float", low=0.0, high=100.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=0.05, high=1.0, log=True, off=True),
        doc="α of mixup: pairs of examples and labels are mixed with a weight drawn from Beta(α, α) per batch (Zhang et al. "
        "2018).",
    )] = None
    input_noise: Annotated[Domain | None, Setting(
        group="noise", kind="float", low=0.0, high=100.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=0.01, high=1.0, log=True, off=True),
        doc="Standard deviation of Gaussian noise on the preprocessed, by default standardized, features (Bishop 1995).",
    )] = None
    feature_masking: Annotated[Domain | None, Setting(
        group="noise", kind="float", low=0.0, high=0.95, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=0.05, high=0.5, off=True),
        doc="Rate at which features are set to 0, their mean, without rescaling the others (cutout for tables, as in Kadra et "
        "al. 2021); `input_dropout` rescales them.")] = None
