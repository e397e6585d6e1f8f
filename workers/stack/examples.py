"""Examples that are made of their source when they are asked for: bytes of images, or rows of a file, become float32 here.

The source stays where it is, in memory or in a file; on CUDA it is copied to the device if it takes at most a quarter of the
free memory there. What is made of a row is the same as in `workers.plain.preprocessing.features`, to the last bit.
Shapes: `R` examples, `r` of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.datasets import Mapped
from workers.data import Fitted, Lazy, RawTable
from workers.plain.columns import LARGEST, codes
from workers.plain.preprocessing import Channels, Table, channels_first, module_of
from workers.stack.memory import free_bytes

_DEVICE_SHARE = 0.25
_COPIED_BYTES = 1 << 26


class Examples:
    """(R, ...) float32, indexed like a tensor by its first axis. Safe to use from several threads.

    Args:
        parts: Of one table, below each other; each has a preprocessing.
        device: Where examples are wanted.
    """

    def __init__(self, parts: Sequence[Lazy], device: torch.device) -> None:
        table = parts[0].table
        self.device = device
        self._rows = np.concatenate([part.rows for part in parts])
        self._source = _placed(_source_of(table), device)
        self._lengths = None if table.lengths is None else torch.from_numpy(table.lengths).to(device)
        fitted = list({id(part.fitted): part.fitted for part in parts}.values())
        self._encoders = [_encoder(each, table, device) for each in fitted]
        owners = [next(place for place, each in enumerate(fitted) if each is part.fitted) for part in parts]
        self._owner = np.repeat(np.array(owners), [len(part.rows) for part in parts])
        self._example = tuple(self._encoded(self._encoders[0], self._rows[:1]).shape[1:])

    @property
    def shape(self) -> tuple[int, ...]:
        """(R, ...)."""
        return (len(self), *self._example)

    def __len__(self) -> int:
        """R."""
        return len(self._rows)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """(…, ...) float32 on the device, contiguous, of the examples with these numbers (…)."""
        if isinstance(index, slice):
            return self._made(np.arange(*index.indices(len(self))))
        numbers = index.reshape(-1).cpu().numpy()
        if isinstance(self._source, Tensor):
            return self._made(numbers).view(*index.shape, *self._example)
        distinct, where = np.unique(numbers, return_inverse=True)  # a file is read from its begin to its end
        found = self._made(distinct)[torch.from_numpy(where.reshape(-1)).to(self.device)]
        return found.view(*index.shape, *self._example)

    def subset(self, index: Tensor) -> Examples:
        """The examples with these numbers (r,), of the same source."""
        chosen = Examples.__new__(Examples)
        numbers = index.cpu().numpy()
        chosen.__dict__ |= self.__dict__ | {"_rows": self._rows[numbers], "_owner": self._owner[numbers]}
        return chosen

    def _made(self, numbers: NDArray[np.int64]) -> Tensor:
        rows, owner = self._rows[numbers], self._owner[numbers]
        if len(self._encoders) == 1:
            return self._encoded(self._encoders[0], rows)
        out = torch.empty((len(rows), *self._example), device=self.device)
        for place, encoder in enumerate(self._encoders):
            here = np.flatnonzero(owner == place)
            if len(here):
                out[torch.from_numpy(here).to(self.device)] = self._encoded(encoder, rows[here])
        return out

    @torch.no_grad()
    def _encoded(self, encoder: _OfImages | _OfSeries | _OfTable, rows: NDArray[np.int64]) -> Tensor:
        lengths = None if self._lengths is None else self._lengths[torch.from_numpy(rows).to(self.device)]
        if isinstance(self._source, Tensor):
            raw = self._source[torch.from_numpy(rows).to(self.device)]
        else:
            raw = torch.from_numpy(self._source[rows]).to(self.device)
        return encoder(raw, lengths).contiguous()


class _OfImages:
    def __init__(self, fitted: Fitted, module: Channels, device: torch.device) -> None:
        self._module, self._channels = module.to(device), fitted.get("channels", "auto")

    def __call__(self, raw: Tensor, lengths: Tensor | None) -> Tensor:
        if raw.ndim == 3:
            return self._module(raw[..., None])  # type: ignore[no-any-return]
        raw = raw.movedim(1, -1) if channels_first(raw.shape, self._channels) else raw
        return self._module(raw)  # type: ignore[no-any-return]


class _OfSeries:
    def __init__(self, module: Channels, device: torch.device) -> None:
        self._module = module.to(device)

    def __call__(self, raw: Tensor, lengths: Tensor | None) -> Tensor:
        return self._module(raw, lengths)  # type: ignore[no-any-return]


class _OfTable:
    """Columns of the records to features; the numbers of categories are looked up."""

    def __init__(self, fitted: Fitted, module: Table, table: RawTable, device: torch.device) -> None:
        assert table.records is not None, "the table is in memory"
        self._module = module.to(device)
        places = {name: place for place, name in enumerate(table.records.names)}
        words = fitted["words"]
        self._numbers = torch.tensor(
            [places[name] for name in fitted["numbers"]["columns"]], dtype=torch.int64, device=device
        )
        self._words = [places[name] for name in words["columns"]]
        self._codes = [
            torch.from_numpy(codes({name: [*table.records.texts[name], None]}, _only(words, place))[:, 0]).to(device)
            for place, name in enumerate(words["columns"])
        ]

    def __call__(self, raw: Tensor, lengths: Tensor | None) -> Tensor:
        numbers = raw[:, self._numbers].double()
        numbers = torch.where(numbers.abs() <= LARGEST, numbers, torch.nan)
        return self._module(numbers, self._coded(raw))  # type: ignore[no-any-return]

    def _coded(self, raw: Tensor) -> Tensor:
        found = []
        for place, known in zip(self._words, self._codes, strict=True):
            column = raw[:, place]
            found.append(known[torch.where(column.isnan(), len(known) - 1, column).long()])
        return torch.stack(found, 1) if found else raw.new_zeros((len(raw), 0), dtype=torch.int64)


def _only(words: Fitted, place: int) -> dict[str, Any]:
    return {key: [words[key][place]] for key in ("columns", "fill", "levels", "shared")}


def _encoder(fitted: Fitted, table: RawTable, device: torch.device) -> _OfImages | _OfSeries | _OfTable:
    module = module_of(fitted)
    if isinstance(module, Table):
        return _OfTable(fitted, module, table, device)
    return _OfImages(fitted, module, device) if module.image else _OfSeries(module, device)


def _source_of(table: RawTable) -> Mapped | NDArray[Any]:
    """The features as they were given: bytes, or floats."""
    if table.records is not None:
        return table.records.matrix
    assert table.arrays is not None, "a table that is read by rows has arrays or records"
    return table.arrays


def _placed(source: Mapped | NDArray[Any], device: torch.device) -> Mapped | NDArray[Any] | Tensor:
    """On CUDA the source on the device, where it has room."""
    if isinstance(source, np.ndarray) and source.dtype not in (np.uint8, np.float32):
        source = source.astype(np.float32)
    if device.type == "cpu" or source.nbytes > _DEVICE_SHARE * free_bytes(device):
        return source
    size = max(1, _COPIED_BYTES // max(1, math.prod(source.shape[1:])))
    blocks = range(0, len(source), size)
    return torch.cat([torch.from_numpy(source[start : start + size]).to(device) for start in blocks])
