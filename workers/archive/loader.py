"""Loads a model of regsearch and predicts: this one file, needing torch, safetensors and NumPy, and nothing of the service.

    model = Model.load("directory of the unpacked archive")
    model.predict("new.csv")                    # a CSV file, a pandas DataFrame, or {column: values}
    python loader.py new.csv --out predictions.csv

Shapes: `r` rows, `d` features of the network, `o` outputs. A column that training had must be there; others are ignored.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from workers.data.scaling import Scaler

FORMAT = 1
_LARGEST = float(np.finfo(np.float32).max)
_ROWS_AT_ONCE = 4096

# What pandas takes for missing in a CSV file, and training was done on what pandas had read.
_MISSING = frozenset(
    "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")  # noqa: SIM905
)

Columns = Mapping[str, Sequence[Any]]
Rows = str | Path | Columns | Any
"""A CSV file, values by column, or a pandas DataFrame."""


class CannotPredict(ValueError):
    """The rows are not what the model was trained on, or the archive is not one that this loader knows."""


@dataclass
class Model:
    """A trained network with its preprocessing. ``about`` is the archive's recipe.json."""

    about: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    network: nn.Module

    @classmethod
    def load(cls, directory: str | Path) -> Model:
        """Read an unpacked archive.

        Raises:
            CannotPredict: It was written by another version, or its network is of a family that this loader can't build.
        """
        about = json.loads((Path(directory) / "recipe.json").read_text(encoding="utf-8"))
        preprocessing = json.loads((Path(directory) / "preprocessing.json").read_text(encoding="utf-8"))
        if about["format"] != FORMAT or preprocessing["kind"] != "table":
            raise CannotPredict(f"this loader reads tables of format {FORMAT}; the archive is of format {about['format']}")
        network = build(about["model"])
        network.load_state_dict(load_file(Path(directory) / "weights.safetensors"), strict=True)
        return cls(about, preprocessing, network.eval())

    @property
    def columns(self) -> list[str]:
        """The columns that rows must have."""
        return [*self.preprocessing["numbers"]["columns"], *self.preprocessing["words"]["columns"]]

    def predict(self, rows: Rows) -> NDArray[Any]:
        """(r,) class labels, or numbers in the target's own unit.

        Raises:
            CannotPredict: A column is missing.
        """
        return self.decode(self.outputs(rows))

    def decode(self, out: Tensor) -> NDArray[Any]:
        """(r,) what outputs (r, o) say: class labels, or numbers in the target's own unit."""
        if self.about["task"] == "classification":
            labels = np.array(self.about["classes"], dtype=object)
            return np.asarray(labels[out.argmax(1).numpy()])
        target = self.about["target_scale"]
        return np.asarray(out[:, 0].numpy().astype(np.float64) * target["scale"] + target["mean"])

    def probabilities(self, rows: Rows) -> NDArray[np.float64]:
        """(r, o) probabilities of the classes, in the order of ``about["classes"]``."""
        return np.asarray(self.outputs(rows).double().softmax(1).numpy())

    @torch.no_grad()
    def outputs(self, rows: Rows) -> Tensor:
        """(r, o) what the network says: logits, or the standardized prediction."""
        x = torch.from_numpy(self.features(rows))
        return torch.cat([self.network(part) for part in torch.split(x, _ROWS_AT_ONCE)])

    def features(self, rows: Rows) -> NDArray[np.float32]:
        """(r, d) what the network reads."""
        columns = read_csv(rows) if isinstance(rows, str | Path) else rows
        there = [str(name) for name in (columns.columns if hasattr(columns, "columns") else columns)]
        lacking = [name for name in self.columns if name not in there]
        if lacking:
            raise CannotPredict(f"there is no column {', '.join(map(repr, lacking))}; the columns are: {', '.join(there)}")
        parts = [_numbers(columns, self.preprocessing["numbers"]), _words(columns, self.preprocessing["words"])]
        whole = np.concatenate([part for part in parts if part is not None], axis=1)
        return np.ascontiguousarray(np.clip(whole, -_LARGEST, _LARGEST).astype(np.float32))


def read_csv(path: str | Path) -> dict[str, list[str | None]]:
    """A CSV file (also compressed by gzip) by column; None where a value is missing.

    Raises:
        CannotPredict: It is no text, has no rows, or a line has more or fewer fields than the header.
    """
    with Path(path).open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    try:
        with (
            cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
            if packed
            else Path(path).open(encoding="utf-8-sig", newline="") as file
        ):
            return _by_column(file, str(path))
    except (UnicodeDecodeError, csv.Error, EOFError) as error:
        raise CannotPredict(f"{path} can't be read as CSV: {error}") from None


def _by_column(file: TextIO, path: str) -> dict[str, list[str | None]]:
    lines = csv.reader(file, skipinitialspace=True)
    names = next((line for line in lines if line), [])
    columns: list[list[str | None]] = [[] for _ in names]
    for line in lines:
        if len(line) != len(names):
            if not line or (len(line) == 1 and not line[0].strip()):
                continue
            raise CannotPredict(f"{path}, line {lines.line_num}: {len(line)} fields, but the header has {len(names)}")
        for column, value in zip(columns, line, strict=True):
            column.append(None if value in _MISSING else value)
    if not columns or not columns[0]:
        raise CannotPredict(f"{path} has no rows")
    return dict(zip(names, columns, strict=True))


def _numbers(rows: Columns, fitted: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """(r, numeric columns and flags of missing ones) scaled."""
    if not fitted["columns"]:
        return None
    x = np.stack([_as_numbers(rows[name]) for name in fitted["columns"]], axis=1)
    x = np.where(np.abs(x) <= _LARGEST, x, np.nan)
    missing = np.isnan(x)
    scaled = Scaler.from_json(fitted["scaler"]).apply(np.where(missing, np.array(fitted["fill"], dtype=np.float64), x))
    return np.concatenate([scaled, missing[:, fitted["flagged"]]], axis=1)


def _as_numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    if getattr(getattr(values, "dtype", None), "kind", "O") in "iufb":
        return np.asarray(values, dtype=np.float64)
    return np.array([_as_number(value) for value in values], dtype=np.float64)


def _as_number(value: Any) -> float:
    try:
        return math.nan if value is None or (isinstance(value, str) and "_" in value) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _words(rows: Columns, fitted: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """(r, codes) zeros and ones, or (r, columns) the codes themselves."""
    parts = []
    for name, fill, levels, shared in zip(*(fitted[key] for key in ("columns", "fill", "levels", "shared")), strict=True):
        unseen = 0 if fitted["ordinal"] else shared
        codes = np.array([_code(value, fill, levels, unseen) for value in rows[name]], dtype=np.int64)
        if fitted["ordinal"]:
            parts.append(codes[:, None].astype(np.float64))
        else:
            parts.append((codes[:, None] == np.arange(max(levels.values(), default=-1) + 1)).astype(np.float64))
    return np.concatenate(parts, axis=1) if parts else None


def _code(value: Any, fill: str, levels: Mapping[str, int], unseen: int) -> int:
    if value is None or value != value or str(value) in ("<NA>", "NaT"):  # noqa: PLR0124  # NaN is not itself
        return levels.get(fill, unseen)
    return next((levels[text] for text in _texts(value) if text in levels), unseen)


def _texts(value: Any) -> Iterator[str]:
    """The ways in which a value may have been written in training: 1, 1.0 and "1.0" are one category."""
    if not isinstance(value, str):
        yield str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)
        return
    yield value
    yield value.strip().capitalize()  # true
    number = _as_number(value)
    if math.isfinite(number):
        yield str(int(number)) if number.is_integer() else str(number)


def mlp(shape: Mapping[str, Any]) -> nn.Module:
    """Linear, normalization and activation for every hidden layer, then a linear head."""
    activations = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh, "elu": nn.ELU}
    norms: dict[str, Callable[[int], nn.Module]] = {
        "batch": nn.BatchNorm1d,
        "layer": nn.LayerNorm,
        "group": lambda width: nn.GroupNorm(math.gcd(shape["groups"], width), width),
    }
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    before = shape["inputs"]
    for place, width in enumerate(shape["widths"], start=1):
        layers[f"linear{place}"] = nn.Linear(before, width, bias=shape["normalization"] != "batch")
        if shape["normalization"] in norms:
            layers[f"norm{place}"] = norms[shape["normalization"]](width)
        layers[f"act{place}"] = activations[shape["activation"]]()
        before = width
    layers["head"] = nn.Linear(before, shape["outputs"])
    return nn.Sequential(layers)


FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {"mlp": mlp}
"""What builds a network of each family from recipe.json's `model`."""


def build(shape: Mapping[str, Any]) -> nn.Module:
    """An ordinary PyTorch module of this shape."""
    if shape["family"] not in FAMILIES:
        raise CannotPredict(f"this loader knows no networks of the family {shape['family']!r}, only {', '.join(FAMILIES)}")
    return FAMILIES[shape["family"]](shape)


def main() -> None:
    """Predict from the command line."""
    parser = argparse.ArgumentParser(description="Predict rows of a CSV file with this model.")
    parser.add_argument("rows", help="a CSV file with the columns that training had")
    parser.add_argument("--out", default="-", help="where the predictions go; default: standard output")
    given = parser.parse_args()
    try:
        model = Model.load(Path(__file__).parent)
        rows = read_csv(given.rows)
        with sys.stdout if given.out == "-" else Path(given.out).open("w", encoding="utf-8", newline="") as file:
            _write(model, rows, file)
    except (CannotPredict, OSError) as error:
        sys.exit(str(error))


def _write(model: Model, rows: Columns, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    out = model.outputs(rows)
    predictions = model.decode(out).tolist()
    if model.about["task"] == "classification":
        writer.writerow(["prediction", *(f"probability of {label}" for label in model.about["classes"])])
        shares = out.double().softmax(1).tolist()
        writer.writerows([label, *of_row] for label, of_row in zip(predictions, shares, strict=True))
    else:
        writer.writerow(["prediction"])
        writer.writerows([value] for value in predictions)


if __name__ == "__main__":
    main()
