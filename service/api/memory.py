"""Whether a worker can have what a study needs: its devices, and at least its memory.

What is needed of that is a lower bound, so that nothing is refused that fits.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from service.datasets import TableInfo
from service.datasets.tables import READ_BY_ROWS, READ_BY_ROWS_BYTES
from service.errors import InvalidInput
from service.spec import StudySpec
from service.spec.domain import Choices, Domain, Fixed, Range
from service.spec.recipe import GROWTH
from service.store import Store

_FLOAT = 4
_COPIES = 3
"""Of a network's weights while it trains: themselves, their gradients, the best ones so far."""
_KERNEL = {"mlp": 1, "sequence": 1, "cnn": 9}
"""Weights between two units, at least, by family."""


def check_memory(spec: StudySpec, table: TableInfo, store: Store, ending: str) -> None:
    """Check that the largest living worker can hold the data, of a file with that ending, and one of the smallest networks.

    Where no worker is alive, or none has told its memory, nothing is refused.

    Raises:
        InvalidInput: On ``data`` or on the settings of the widths, with the bytes that are needed and there are.
    """
    most = store.workers.most("memory")
    if most is None:
        return
    folds = spec.validation.folds * spec.searches if spec.validation.cross_validated else 1
    inputs = _inputs(spec, table)
    data = folds * table.rows * inputs * _FLOAT
    if ending in READ_BY_ROWS and table.rows * inputs * _FLOAT > READ_BY_ROWS_BYTES:
        data = 0  # at least where the file is not compressed
    allowed = f"at most {most / 2**30:.1f} GiB, the memory of the largest worker"
    if data > most:
        needed = f"needs at least {data / 2**30:.1f} GiB: {table.rows} rows of {inputs} inputs"
        raise InvalidInput.one("data", needed + (f" in {folds} folds" if folds > 1 else ""), value=data, allowed=allowed)
    if spec.model.module is not None:
        return  # a worker knows how large it is
    widths = smallest_widths(spec)
    network = weights_of(spec, widths, inputs) * _FLOAT * _COPIES
    if data + network > most:
        field = "model.widths" if spec.model.widths is not None else "model.width"
        message = f"needs at least {(data + network) / 2**30:.1f} GiB with its data: a network of {len(widths)} layers"
        raise InvalidInput.one(field, message, value=list(widths)[:20], allowed=allowed)


def check_devices(spec: StudySpec, store: Store) -> None:
    """Check that a living worker has as many devices as each network is to be trained on.

    Where no worker is alive nothing is refused.

    Raises:
        InvalidInput: On ``model.devices``.
    """
    if spec.model.devices == 1:
        return
    most = store.workers.most("devices")
    if most is not None and most < spec.model.devices:
        message = "is more than any worker has; `regsearch worker` or `launch` with --devices-per-trial starts one with more"
        allowed = f"at most {most}, the devices of the largest worker"
        raise InvalidInput.one("model.devices", message, value=spec.model.devices, allowed=allowed)


def _inputs(spec: StudySpec, table: TableInfo) -> int:
    """Numbers of an example, at least."""
    if len(table.shape) > 1 or table.column("x") is not None:
        return math.prod(table.shape)
    others = {*spec.data.drop, *spec.data.targets, *spec.data.aside}
    return max(1, sum(column.name not in others for column in table.columns))


def smallest_widths(spec: StudySpec) -> tuple[int, ...]:
    """The widths of the smallest network that the study may train."""
    if spec.model.widths is not None:
        return tuple(spec.model.widths)
    width, depth = (int(_least(spec.domains[name])) for name in ("width", "depth"))
    growth = GROWTH[spec.model.word]
    return tuple(width * growth**layer for layer in range(depth))


def weights_of(spec: StudySpec, widths: tuple[int, ...], inputs: int) -> int:
    """Weights of a network, at least."""
    first = inputs * widths[0] if widths and spec.model.word == "mlp" else 0
    return int(first + _KERNEL[spec.model.word] * sum(a * b for a, b in pairwise(widths)))


def _least(domain: Domain) -> float:
    found: list[Any] = []
    match domain:
        case Fixed(value=value):
            found = [value]
        case Choices(choices=choices):
            found = list(choices)
        case Range(low=low):
            found = [low]
    return float(min((each for each in found if isinstance(each, int | float)), default=1.0))
