"""Shapes of the loss that count some examples less: well-known ones, or far-off ones."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting


class Loss(Frozen):
    """Shapes of the loss that count some examples less: well-known ones, or far-off ones."""

    focal_gamma: Annotated[Domain | None, Setting(
        group="loss", kind="float", low=0.0, high=10.0, neutral=0.0, off=True, regularizer=True, task="classification",
        search=Fixed(value=OFF), advised=Range(low=0.5, high=5.0, off=True),
        doc="γ of the focal loss (1 − p)^γ·(−log p), with the probability p of the label: examples that the network is sure "
        "of count less (Lin et al. 2017), which keeps it from growing too sure (Mukhoti et al. 2020).")] = None
    huber_delta: Annotated[Domain | None, Setting(
        group="loss", kind="float", low=0.0, high=100.0, neutral=0.0, off=True, regularizer=True, task="regression",
        search=Fixed(value=OFF), advised=Range(low=0.3, high=5.0, log=True, off=True),
        doc="δ of the Huber loss, in standard deviations of the target (of each of several): errors beyond it count linearly, δ·(2|r| − δ), not "
        "squared, so that outliers of the target pull less (Huber 1964).")] = None
