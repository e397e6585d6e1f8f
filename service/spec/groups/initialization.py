"""The initial weights."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import Choices, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, When


class Initialization(Frozen):
    """The initial weights."""

    init: Annotated[Domain | None, Setting(
        group="initialization", kind="word", words=("he", "xavier", "normal", "orthogonal", "own"), neutral="he",
        search=Fixed(value="he"), advised=Choices(choices=("he", "xavier", "orthogonal")),
        doc="Initial weights: He et al. 2015, Glorot and Bengio 2010, N(0, `init_std`²), or orthogonal with gain √2 (Saxe et al. "
        "2014); biases start at zero. `own`, only of a module and its default: as it initializes itself.")] = None
    init_distribution: Annotated[Domain | None, Setting(
        group="initialization", kind="word", words=("uniform", "normal"), neutral="uniform",
        search=Fixed(value="uniform"), advised=Choices(choices=("uniform", "normal")), when=When("init", ("he", "xavier")),
        doc="Distribution of the initial weights.")] = None
    init_std: Annotated[Domain | None, Setting(
        group="initialization", kind="float", low=0.0, high=10.0, neutral=0.05, search=Range(low=0.01, high=0.2, log=True),
        when=When("init", ("normal",)), doc="Standard deviation of the initial weights.")] = None
    unit_variance: Annotated[Domain | None, Setting(
        group="initialization", kind="bool", neutral=False, search=Fixed(value=False),
        advised=Choices(choices=(False, True)), when=When("family", ("mlp", "cnn")),
        doc="Scales the initial weights so that the outputs of every linear layer and convolution have variance 1 on training "
        "examples (LSUV; Mishkin and Matas 2016).")] = None
