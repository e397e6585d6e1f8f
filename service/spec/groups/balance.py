"""Weights of rare classes in training."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Choices, Domain, Fixed, Frozen
from service.spec.setting import Setting


class Balance(Frozen):
    """Weights of rare classes in training."""

    class_weights: Annotated[Domain | None, Setting(
        group="balance", kind="float", low=0.0, high=1.0, neutral=0.0, off=True, task="classification",
        search=Fixed(value=OFF), advised=Choices(choices=(OFF, 1.0)),
        doc="Weights of the classes in the loss: 0 is none, 1 is rows / (classes · rows of the class), so that all classes "
        "count equally (King and Zeng 2001), and 0.5 is halfway; of several labels each is balanced by itself, as two classes. Metrics are not weighted.")] = None
