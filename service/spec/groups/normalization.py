"""Normalization of activations or weights."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import Choices, Domain, Fixed, Frozen
from service.spec.setting import Setting, When


class Normalization(Frozen):
    """Normalization of activations or weights."""

    normalization: Annotated[Domain | None, Setting(
        group="normalization", kind="word", words=("none", "batch", "layer", "group", "weight"), neutral="none",
        regularizer=True, scope="stack", search=Choices(choices=("none", "batch", "layer")),
        doc="Normalization behind every hidden linear layer (`weight`: of its weights; Salimans and Kingma 2016).")] = None
    normalization_groups: Annotated[Domain | None, Setting(
        group="normalization", kind="int", low=1, high=1024, neutral=8, scope="stack", search=Fixed(value=8),
        when=When("normalization", ("group",)),
        doc="Number of groups; lowered to its greatest common divisor with the width.")] = None
