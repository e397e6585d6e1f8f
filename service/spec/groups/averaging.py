"""Averages of the weights over training."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import Choices, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, When


class Averaging(Frozen):
    """Averages of the weights over training, which are evaluated and kept instead of the last weights."""

    averaging: Annotated[Domain | None, Setting(
        group="averaging", kind="word", words=("none", "ema", "swa"), neutral="none", regularizer=True,
        search=Fixed(value="none"), advised=Choices(choices=("none", "ema", "swa")),
        doc="Weights (and running statistics) that are evaluated and kept: the last ones, their exponential moving average, or "
        "their mean over the ends of epochs (stochastic weight averaging; Izmailov et al. 2018).")] = None
    ema_decay: Annotated[Domain | None, Setting(
        group="averaging", kind="float", low=0.0, high=0.99999, neutral=0.99, search=Range(low=0.9, high=0.999),
        when=When("averaging", ("ema",)), doc="Decay of the moving average, per update, as in torch.optim.swa_utils.",
    )] = None
    swa_start: Annotated[Domain | None, Setting(
        group="averaging", kind="float", low=0.0, high=1.0, neutral=0.75, search=Range(low=0.5, high=0.9),
        when=When("averaging", ("swa",)), doc="Fraction of the epochs after which averaging begins.")] = None
