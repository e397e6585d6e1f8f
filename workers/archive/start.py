"""An earlier study's archive as the beginning of networks: its weights by the modules' names, and its preprocessing.

Preprocessing belongs to weights that were trained on its output, so it is taken over as it is. The last layer is taken over
only where it means the same: the same classes in the same order, or the same number, which then keeps its unit. Of several
networks the first is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from service.errors import TrialError
from workers.archive.read import read_archive
from workers.data import Fitted, RawTable, TargetScale
from workers.plain.foreign import ModuleFault
from workers.plain.network import HEAD, Average, Shape, build, head_of


@dataclass(frozen=True)
class Start:
    """``weights`` is a state dict, without the last layer if that has to be another; ``target`` is that layer's unit.

    The weights of a module of theirs have its own names, as in a file of weights.
    """

    weights: Mapping[str, Tensor]
    preprocessor: Fitted
    target: TargetScale | None


def read_start(archive: bytes, table: RawTable, target: str | tuple[str, ...]) -> Start:
    """What an archive brings to a study that predicts the column ``target`` of ``table``, or several.

    Raises:
        TrialError: It is of a module that is not here any more, or can't be built as it was.
    """
    about, fitted, weights = read_archive(archive)
    if about.get("networks", 1) > 1:
        first = Average.names(0)
        weights = {name.removeprefix(first): value for name, value in weights.items() if name.startswith(first)}
    shape = Shape.from_json(about["model"])
    try:
        head = HEAD if shape.module is None else head_of(build(shape))
    except ModuleFault as fault:
        raise TrialError(f"model.start_from: {fault}") from None
    same = _means_the_same(about, table, target)
    weights = {name: value for name, value in weights.items() if same or not name.startswith(head)}
    if shape.module is not None:
        weights = {name.removeprefix("net."): value for name, value in weights.items()}
    if not same:
        return Start(weights, fitted, None)
    unit = {name: tuple(value) if isinstance(value, list) else value for name, value in about["target_scale"].items()}
    return Start(weights, fitted, TargetScale(**unit))


def _means_the_same(about: Mapping[str, Any], table: RawTable, target: str | tuple[str, ...]) -> bool:
    if about["task"] != table.task:
        return False
    if table.task == "classification":
        return list(about["classes"]) == list(table.labels)
    named = [tuple(each) if isinstance(each, list | tuple) else each for each in (about["target"], target)]
    return named[0] == named[1] and [list(pair) for pair in about.get("levels") or ()] == [
        list(pair) for pair in table.levels
    ]
