"""Penalties on the weights: in the loss, or as decay beside it."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting


class Penalties(Frozen):
    """Penalties on the weights: in the loss, or as decay beside it."""

    l1: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=10.0, neutral=0.0, off=True, regularizer=True,
        search=Range(low=1e-6, high=1e-2, log=True, off=True),
        doc="λ of the L1 penalty λ·‖w‖₁ in the loss; weights only. With l2: elastic net.")] = None
    l2: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=10.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF),
        doc="λ of the L2 penalty λ/2·‖w‖² in the loss (gradient λ·w, as torch.optim's coupled weight_decay); weights only.",
    )] = None
    weight_decay: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, regularizer=True,
        search=Range(low=1e-2, high=30.0, log=True, off=True),
        doc="Decoupled weight decay: w ← w·max(0, 1 − lr·λ) at every update (Loshchilov and Hutter 2019); weights only.",
    )] = None
