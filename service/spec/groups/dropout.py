"""Dropout on the input and after the hidden layers."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Choices, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, When

STRENGTHS = ("constant", "flat_cosine")
"""Schedules of a regularizer's strength."""


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
    dropout_schedule: Annotated[Domain | None, Setting(
        group="dropout", kind="word", words=STRENGTHS, neutral="constant", search=Fixed(value="constant"),
        advised=Choices(choices=STRENGTHS),
        doc="Schedule of all dropout rates, stepped after each epoch: `flat_cosine` is constant during the first half of the "
        "epochs, then a cosine to 0 (Holzmüller et al. 2024).")] = None
    head_dropout: Annotated[Domain | None, Setting(
        group="dropout", kind="float", low=0.0, high=0.95, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF), advised=Range(low=0.05, high=0.6, off=True), when=When("family", ("cnn", "sequence")),
        doc="Rate at which pooled features are zeroed before the head.")] = None
