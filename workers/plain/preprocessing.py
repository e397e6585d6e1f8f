"""Fitted preprocessing: from rows to what a network reads, the same for training, validation, test and prediction.

What was fitted is a document of plain values (preprocessing.json of an archive); here it becomes modules of tensor
operations, which can be exported to ONNX. Fitting is not in here. Shapes: `r` rows, `n` numbers, `m` categories, `d`
features; images (r, h, w), (r, h, w, c) or (r, c, h, w) become (r, c, h, w), series (r, t, c) stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import columns as given
from .readings import Ambiguous, derived, sources
from .scaling import Scaling

VERSION = 1
_BLOCK_CELLS = 4_000_000


class CannotPredict(ValueError):
    """The rows are not what the model was trained on, or the archive is not one that this version reads."""


class Table(nn.Module):
    """Numbers (r, n) in double precision, NaN where missing, and codes (r, m) of categories, to features (r, d) float32.

    First the scaled numbers, then a 0/1 column for each of the ``flagged`` that tells whether it is missing, then the
    one-hot categories; a code of −1 is a row of zeros.
    """

    fill: Tensor

    def __init__(self, fitted: Mapping[str, Any]) -> None:
        super().__init__()
        numbers = fitted["numbers"]
        self.register_buffer("fill", torch.tensor(numbers["fill"], dtype=torch.float64))
        self.scaling = Scaling(numbers["scaler"])
        self.flagged = [int(index) for index in numbers["flagged"]]
        self.sizes = [int(size) for size in fitted["words"]["sizes"]]

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """(r, n) and (r, m) to (r, d)."""
        parts = []
        if len(self.fill):
            # A value too large for a float32 counts as missing, and what scaling makes of others must not become infinite.
            missing = numbers.isnan() | (numbers.abs() > given.LARGEST)
            parts = [self.scaling(torch.where(missing, self.fill, numbers))]
            if self.flagged:
                parts.append(missing[:, self.flagged].double())
        for place, size in enumerate(self.sizes):
            parts.append((codes[:, place, None] == torch.arange(size, device=codes.device)).double())
        return torch.cat(parts, 1).clamp(-given.LARGEST, given.LARGEST).float()


class Channels(nn.Module):
    """Images (r, h, w, c) to (r, c, h, w), or series (r, t, c), each channel by its training mean and deviation.

    Missing and infinite values become the mean; steps of a series from its length on become NaN, which is padding.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, fitted: Mapping[str, Any]) -> None:
        super().__init__()
        self.image = LAYOUTS[fitted["layout"]]
        for name in ("mean", "scale"):
            self.register_buffer(name, torch.tensor(fitted[name], dtype=torch.float64).float())

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See the class; ``lengths`` (r,) are those of the series."""
        x = (x.float() - self.mean) / self.scale
        x = torch.where(x.isfinite(), x, 0.0)
        if lengths is not None:
            padding = torch.arange(x.shape[1], device=x.device)[None] >= lengths[:, None]
            x = torch.where(padding[..., None], torch.nan, x)
        return x.permute(0, 3, 1, 2) if self.image else x


LAYOUTS: Mapping[str, bool] = {"image": True, "sequence": False}
"""Whether examples of a layout are images."""

KINDS: Mapping[str, type[Table | Channels]] = {"table": Table, "array": Channels}


def module_of(fitted: Mapping[str, Any]) -> Table | Channels:
    """The module of a fitted document.

    Raises:
        CannotPredict: It was written by a later version, or is no such document.
    """
    kind, version = str(fitted.get("kind")), fitted.get("version")
    if kind not in KINDS or version != VERSION:
        raise CannotPredict(f"this is preprocessing of the kind {kind!r}, version {version!r}; known is version {VERSION}")
    return KINDS[kind](fitted)


def features(rows: Any, fitted: Mapping[str, Any]) -> NDArray[np.float32]:
    """(r, ...) what a network reads, C-contiguous.

    Args:
        rows: Values by column (also a pandas DataFrame), of which further ones are ignored; or ``{"x": array}`` with the
            ``lengths`` of series, or the array itself.
        fitted: The document.

    Raises:
        CannotPredict: A column or the array is missing, or has other channels.
    """
    module = module_of(fitted)
    if isinstance(module, Table):
        return _of_table(rows, fitted, module)
    return _of_array(rows, fitted, module)


def _by_column(rows: Any) -> Any:
    """An array of numbers by column, as training names them: x0, x1, …; anything else as it is."""
    if isinstance(rows, Mapping) and "x" in rows and hasattr(rows["x"], "ndim"):
        rows = rows["x"]
    if hasattr(rows, "columns") or not hasattr(rows, "ndim"):
        return rows
    flat = np.asarray(rows).reshape(len(rows), -1).astype(np.float32)
    return {f"x{index}": flat[:, index] for index in range(flat.shape[1])}


def _of_table(rows: Any, fitted: Mapping[str, Any], module: Table) -> NDArray[np.float32]:
    numbers, words = fitted["numbers"]["columns"], fitted["words"]
    rows = needed(rows, fitted)
    x, codes = given.numbers(rows, numbers), given.codes(rows, words)
    count = max(len(x), len(codes))
    x, codes = x.reshape(count, len(numbers)), codes.reshape(count, len(words["columns"]))
    width = width_of(fitted)
    out = np.empty((count, width), dtype=np.float32)
    size = max(1, _BLOCK_CELLS // max(1, width))  # in blocks, as everything is done in doubles
    for start in range(0, count, size):
        block = slice(start, start + size)
        out[block] = module(torch.from_numpy(x[block]), torch.from_numpy(codes[block])).numpy()
    return out


def needed(rows: Any, fitted: Mapping[str, Any], *, raw: bool = False) -> dict[str, Any]:
    """The columns of a table that its preprocessing takes, with nothing for words that are missing; ``raw``: as given.

    Raises:
        CannotPredict: One is not there.
    """
    rows = _by_column(rows)
    names = [*(rows.columns if hasattr(rows, "columns") else rows)]
    if len({*map(str, names)}) < len(names):
        raise CannotPredict("there are several columns of one name")
    rows = {str(name): rows[name] for name in names}
    readings, wanted = fitted.get("readings", {}), [*fitted["numbers"]["columns"], *fitted["words"]["columns"]]
    own = sources(readings, wanted)
    # What a reading makes may be there already, as in the rows of a study.
    taken = list(dict.fromkeys(name if name in rows else own[name] for name in wanted))
    lacking = [name for name in taken if name not in rows]
    if lacking:
        raise CannotPredict(f"there is no column {', '.join(map(repr, lacking))}; the columns are: {', '.join(rows)}")
    missing = fitted.get("missing")
    chosen: Any = given.without(rows, taken, missing) if missing else {name: rows[name] for name in taken}
    try:
        return dict(chosen if raw else derived(chosen, readings))
    except Ambiguous as error:
        raise CannotPredict(str(error)) from None


def _of_array(rows: Any, fitted: Mapping[str, Any], module: Channels) -> NDArray[np.float32]:
    arrays = rows if isinstance(rows, Mapping) else {"x": rows}
    if "x" not in arrays:
        raise CannotPredict(f"there is no array 'x'; the arrays are: {', '.join(arrays)}")
    x, lengths = np.asarray(arrays["x"]), arrays.get("lengths")
    if x.ndim not in ((3, 4) if module.image else (3,)):
        shapes = (
            "images (rows, h, w), (rows, h, w, c) or (rows, c, h, w)" if module.image else "series (rows, time, channels)"
        )
        raise CannotPredict(f"the array has the shape {x.shape}; needed are {shapes}")
    x = channels_last(x, fitted.get("channels", "auto")) if module.image else x
    if x.shape[-1] != len(fitted["mean"]):
        raise CannotPredict(f"examples have {x.shape[-1]} channels, those of training have {len(fitted['mean'])}")
    own = None if lengths is None else torch.from_numpy(np.asarray(lengths, dtype=np.int64))
    # Of a dtype and byte order that torch knows; a double of every image would be the largest array of a whole run.
    return np.ascontiguousarray(module(torch.from_numpy(x.astype(np.float32)), own).numpy())


def channels_last(x: NDArray[Any], channels: str = "auto") -> NDArray[Any]:
    """Images as (r, h, w, c): grey ones get their one channel.

    ``channels`` says where they are: ``first``, ``last``, or ``auto``, the shorter of first and last axis.
    """
    if x.ndim == 3:
        return x[..., None]
    return np.moveaxis(x, 1, -1) if channels_first(x.shape, channels) else x


def channels_first(shape: Sequence[int], channels: str) -> bool:
    """Whether images of the ``shape`` (r, a, b, c) have their channels in front."""
    return channels == "first" or (channels == "auto" and shape[1] < shape[3])


def width_of(fitted: Mapping[str, Any]) -> int:
    """d, the number of features of a table."""
    numbers, words = fitted["numbers"], fitted["words"]
    return int(len(numbers["columns"]) + len(numbers["flagged"]) + sum(words["sizes"]))
