"""Normalization of activations or weights, and skip connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from service.spec.domain import Choices, Domain, Fixed, Frozen
from service.spec.setting import Setting, When

NORMALIZATIONS: Mapping[str, tuple[str, ...]] = {
    "mlp": ("none", "batch", "layer", "group", "weight"),
    "cnn": ("none", "batch", "layer", "group", "instance", "local_response", "weight"),
    "sequence": ("none", "batch", "layer", "group"),
    "module": ("none",),  # it has what it has: see `replace_normalization`
}
"""Those that a family of networks has."""
WORDS = tuple(dict.fromkeys(word for family in ("cnn", "mlp", "sequence") for word in NORMALIZATIONS[family]))


class Normalization(Frozen):
    """Normalization of activations or weights, and skip connections."""

    normalization: Annotated[Domain | None, Setting(
        group="normalization", kind="word", words=WORDS, neutral="none",
        regularizer=True, scope="stack", search=Choices(choices=("none", "batch", "layer")),
        doc="Normalization after each hidden layer or convolution (`weight`: of its weights, Salimans and Kingma 2016, not in a "
        "`sequence`; `instance`, Ulyanov et al. 2016, and `local_response`, Krizhevsky et al. 2012, only in a `cnn`).",
    )] = None
    normalization_groups: Annotated[Domain | None, Setting(
        group="normalization", kind="int", low=1, high=1024, neutral=8, scope="stack", search=Fixed(value=8),
        when=When("normalization", ("group",)),
        doc="Number of groups; reduced to its greatest common divisor with the width.")] = None
    normalization_position: Annotated[Domain | None, Setting(
        group="normalization", kind="word", words=("before", "after"), neutral="before", scope="stack",
        search=Fixed(value="before"), advised=Choices(choices=("before", "after")),
        when=When("family", ("mlp",)), doc="Whether batch, layer and group normalization precede or follow the activation.",
    )] = None
    skip_connections: Annotated[Domain | None, Setting(
        group="normalization", kind="bool", neutral=False, regularizer=True, scope="stack", search=Fixed(value=False),
        advised=Choices(choices=(False, True)), when=When("family", ("mlp",)),
        doc="Skip connections around hidden layers with the same width as the layer before (He et al. 2016).")] = None
    replace_normalization: Annotated[Domain | None, Setting(
        group="normalization", kind="word", words=("own", "none", "batch", "layer", "group"), neutral="own",
        regularizer=True, scope="stack", search=Fixed(value="own"), advised=Choices(choices=("own", "batch", "group")),
        when=When("family", ("module",)),
        doc="By which type the normalization layers of a module are replaced, `none` leaves them out. `layer` and `group` (of "
        "8) are those of channels, or of features where the module has a layer normalization.")] = None
