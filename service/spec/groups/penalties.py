"""Penalties on the weights and constraints of them: in the loss, or beside it."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting


class Penalties(Frozen):
    """Penalties on the weights and constraints of them: in the loss, or beside it."""

    l1: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=10.0, neutral=0.0, off=True, regularizer=True,
        search=Range(low=1e-6, high=1e-2, log=True, off=True),
        doc="λ of the L1 penalty λ·‖w‖₁ in the loss; weights only. With l2: elastic net.")] = None
    l2: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=10.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=1e-6, high=1e-1, log=True, off=True),
        doc="λ of the L2 penalty λ/2·‖w‖² in the loss (gradient λ·w, as torch.optim's coupled weight_decay); weights only.",
    )] = None
    weight_decay: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, regularizer=True,
        search=Range(low=1e-2, high=30.0, log=True, off=True),
        doc="Decoupled weight decay: w ← w·max(0, 1 − lr·λ) at every update (Loshchilov and Hutter 2019); weights only.",
    )] = None
    proximal_l1: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=1e-3, high=1.0, log=True, off=True),
        doc="λ of soft-thresholding, w ← sign(w)·max(|w| − lr·λ, 0) behind every update: reaches exact zeros, whose share is "
        "the curve `sparsity` (Parikh and Boyd 2014); weights only.")] = None
    max_norm: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=0.3, high=3.0, log=True, off=True),
        doc="Largest norm of a unit's incoming weights, as torch.renorm (Srivastava et al. 2014); above 2 it rarely binds.",
    )] = None
