"""Penalties and constraints on the weights, in the loss or separate from it."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Choices, Domain, Fixed, Frozen, Range
from service.spec.groups.dropout import STRENGTHS
from service.spec.setting import Setting, When


class Penalties(Frozen):
    """Penalties and constraints on the weights, in the loss or separate from it."""

    l1: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=10.0, neutral=0.0, off=True, regularizer=True,
        search=Range(low=1e-6, high=1e-2, log=True, off=True),
        doc="λ of the L1 penalty λ·‖w‖₁ in the loss; weights only. With `l2`: elastic net.")] = None
    l2: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=10.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=1e-6, high=1e-1, log=True, off=True),
        doc="λ of the L2 penalty λ/2·‖w‖² in the loss (gradient λ·w, as weight_decay in torch.optim.SGD); weights only.",
    )] = None
    l2_sp: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=10.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=1e-4, high=1.0, log=True, off=True), when=When("fine_tune", ("all",)),
        doc="λ of the penalty λ/2·‖w − w₀‖² towards the weights w₀ that fine-tuning begins with; weights before the last layer "
        "only (L2-SP; Li et al. 2018).")] = None
    weight_decay: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, regularizer=True,
        search=Range(low=1e-2, high=30.0, log=True, off=True),
        doc="λ of decoupled weight decay, w ← w·max(0, 1 − lr·λ) at each update (Loshchilov and Hutter 2019); weights only.",
    )] = None
    weight_decay_schedule: Annotated[Domain | None, Setting(
        group="penalties", kind="word", words=STRENGTHS, neutral="constant", search=Fixed(value="constant"),
        advised=Choices(choices=STRENGTHS), doc="Schedule of `weight_decay`, as `dropout_schedule`.")] = None
    proximal_l1: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=1e-3, high=1.0, log=True, off=True),
        doc="λ of soft-thresholding, w ← sign(w)·max(|w| − lr·λ, 0) after each update: makes weights exactly zero, and their "
        "fraction is the curve `sparsity` (Parikh and Boyd 2014); weights only.")] = None
    max_norm: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=0.3, high=3.0, log=True, off=True),
        doc="Largest norm of a unit's incoming weights, as in torch.renorm (Srivastava et al. 2014); above 2 it rarely has an "
        "effect.",
    )] = None
