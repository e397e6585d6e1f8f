"""The initial weights."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import Domain, Fixed, Frozen
from service.spec.setting import Setting, When


class Initialization(Frozen):
    """The initial weights."""

    init: Annotated[Domain | None, Setting(
        group="initialization", kind="word", words=("he", "xavier"), neutral="he", search=Fixed(value="he"),
        doc="Initial weights: He et al. 2015 or Glorot and Bengio 2010; biases start at zero.")] = None
    init_distribution: Annotated[Domain | None, Setting(
        group="initialization", kind="word", words=("uniform", "normal"), neutral="uniform",
        search=Fixed(value="uniform"), when=When("init", ("he", "xavier")), doc="Distribution of the initial weights.",
    )] = None
