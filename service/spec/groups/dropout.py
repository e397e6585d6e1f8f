"""Dropout on the input and after the hidden layers."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, When


class Dropout(Frozen):
    """Dropout on the input and after the hidden layers."""

    dropout: Annotated[Domain | None, Setting(
        group="dropout", kind="float", low=0.0, high=0.95, neutral=0.0, off=True, regularizer=True, per_layer=True,
        search=Range(low=0.05, high=0.75, off=True),
        doc="Rate at which hidden activations are zeroed, one for all layers or one per layer (Srivastava et al. 2014); in a "
        "`cnn`, that of whole channels, after each stage (Tompson et al. 2015).",
    )] = None
    input_dropout: Annotated[Domain | None, Setting(
        group="dropout", kind="float", low=0.0, high=0.95, neutral=0.0, off=True, regularizer=True,
        search=Range(low=0.02, high=0.3, off=True),
        doc="Rate at which input features are zeroed.")] = None
    head_dropout: Annotated[Domain | None, Setting(
        group="dropout", kind="float", low=0.0, high=0.95, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=0.05, high=0.6, off=True), when=When("family", ("cnn", "sequence")),
        doc="Rate at which pooled features are zeroed before the head.")] = None
