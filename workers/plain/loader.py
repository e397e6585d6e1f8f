"""An unpacked archive as a model that predicts.

    model = Model.load("directory of the unpacked archive")
    model.predict("new.csv")                    # a CSV file, a pandas DataFrame, or {column: values}

Images and series come as an NPZ file with the array `x` (and `lengths`), or as arrays; a model of image files reads a ZIP
file or a folder of them, or a single one. Shapes: `r` rows, `o` outputs.
Every column of the training data must be there; others are ignored.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from .columns import number_of
from .doubts import doubts
from .files import read_rows
from .foreign import ModuleFault, imported, register, source_hash
from .network import Average, Shape, build, load_weights, outputs
from .preprocessing import CannotPredict, features

FORMAT = 2

Rows = str | Path | Mapping[str, Any] | NDArray[Any] | Any
"""A CSV or NPZ file, values by column, a pandas DataFrame, or an array of images or series."""


class NotUnderstood(UserWarning):
    """Values of new rows that are unknown to training, or are no numbers or times."""


@dataclass
class Model:
    """A trained network, or the average of several, with its preprocessing. ``about`` is the archive's recipe.json."""

    about: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    network: nn.Module

    @classmethod
    def load(cls, directory: str | Path, module: Callable[..., nn.Module] | None = None) -> Model:
        """Read an unpacked archive; of a module of your own, whose code is not in it, with its class as ``module``.

        Raises:
            CannotPredict: It was written by another version, or needs its ``module``.
        """
        about = json.loads((Path(directory) / "recipe.json").read_text(encoding="utf-8"))
        preprocessing = json.loads((Path(directory) / "preprocessing.json").read_text(encoding="utf-8"))
        return cls.of(about, preprocessing, load_file(Path(directory) / "weights.safetensors"), module)

    @classmethod
    def of(
        cls,
        about: Mapping[str, Any],
        preprocessing: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        module: Callable[..., nn.Module] | None = None,
    ) -> Model:
        """The same of an archive's parts.

        Raises:
            CannotPredict: They were written by another version, or need their ``module``.
        """
        if about["format"] != FORMAT:
            raise CannotPredict(f"this loader reads archives of format {FORMAT}, not of format {about['format']}")
        shape, networks = Shape.from_json(about["model"]), about.get("networks", 1)
        if module is not None and about.get("module"):
            _adopt(about["module"], module)
        try:
            network = build(shape)
            if networks > 1:
                network = Average([build(shape) for _ in range(networks)], about["task"])
            load_weights(network, weights)
        except (ModuleFault, RuntimeError) as error:
            raise CannotPredict(f"the network can't be loaded: {error}") from error
        return cls(about, preprocessing, network.eval())

    def predict(self, rows: Rows) -> NDArray[Any]:
        """(r,) class labels, or numbers in the target's own unit; (r, t) of several targets.

        Raises:
            CannotPredict: A column is missing.
        """
        return self.decode(self.outputs(rows))

    def decode(self, out: Tensor) -> NDArray[Any]:
        """(r,), or (r, t) of several targets, what outputs (r, o) mean: class labels, or numbers in their own unit."""
        return DECODED[self.about["task"]](self.about, out)

    def probabilities(self, rows: Rows) -> NDArray[np.float64]:
        """(r, o) probabilities of the classes, in the order of ``about["classes"]``, or of each label's second value."""
        return np.asarray(_shares(self.about, self.outputs(rows)).numpy())

    def outputs(self, rows: Rows) -> Tensor:
        """(r, o) the network's outputs: logits, divided by the temperature, or the standardized prediction.

        Warns (`NotUnderstood`) of values that are unknown to training.
        """
        if isinstance(rows, str | Path):
            rows = read_rows(rows, self.preprocessing.get("image"))
        for text in doubts(rows, self.preprocessing):
            warnings.warn(text, NotUnderstood, stacklevel=3)
        x = torch.from_numpy(features(rows, self.preprocessing))
        return outputs(self.network, x) / float(self.about.get("temperature", 1.0))


def _adopt(archived: Mapping[str, Any], module: Callable[..., nn.Module]) -> None:
    """Register the class that belongs to an archive; warns if its file has changed since."""
    register(archived["name"], module)
    if archived["source_sha256"] not in (None, source_hash(module)):
        warnings.warn(f"the file of {archived['name']} is not the one that was trained", NotUnderstood, stacklevel=4)


def _classes(about: Mapping[str, Any], out: Tensor) -> NDArray[Any]:
    biases = torch.tensor(about.get("class_biases") or [0.0] * len(about["classes"]))
    decided = (out + biases / about.get("temperature", 1.0)).argmax(1)  # the outputs are divided by the temperature
    return np.asarray(np.array(about["classes"], dtype=object)[decided.numpy()])


def _labels(about: Mapping[str, Any], out: Tensor) -> NDArray[Any]:
    biases = torch.tensor(about.get("class_biases") or [0.0] * len(about["levels"]))
    decided = (out + biases / about.get("temperature", 1.0) > 0).numpy()
    first, second = (np.array(values, dtype=object) for values in zip(*about["levels"], strict=True))
    return np.where(decided, second, first)


def _numbers(about: Mapping[str, Any], out: Tensor) -> NDArray[Any]:
    scale, mean = (np.asarray(about["target_scale"][name]) for name in ("scale", "mean"))
    found = out.numpy().astype(np.float64) * scale + mean
    return np.asarray(found if scale.ndim else found[:, 0])


def _shares(about: Mapping[str, Any], out: Tensor) -> Tensor:
    """(r, o) probabilities, float64."""
    return out.double().sigmoid() if about["task"] == "multilabel" else out.double().softmax(1)


DECODED: Mapping[str, Callable[[Mapping[str, Any], Tensor], NDArray[Any]]] = {
    "classification": _classes,
    "multilabel": _labels,
    "regression": _numbers,
}
"""What outputs (r, o) mean, by task."""


def main(directory: Path) -> None:
    """Predict from the command line with the model that is unpacked in ``directory``."""
    parser = argparse.ArgumentParser(description="Predict rows of a CSV file with this model.")
    parser.add_argument("rows", help="a CSV file with the columns of the training data, or an NPZ file with the array x")
    parser.add_argument("--out", default="-", help="where the predictions go; default: standard output")
    parser.add_argument("--module", help="package.module:Class, to be imported: the network, if it is one of your own")
    given = parser.parse_args()
    try:
        if given.module is not None:
            imported(given.module)
        predict_file(Model.load(directory), given.rows, given.out)
    except (CannotPredict, ModuleFault, OSError) as error:
        sys.exit(str(error))


def predict_file(model: Model, rows: str, out_path: str) -> None:
    """Write predictions of a file's rows to a CSV file, or to standard output if that is ``-``; warnings go to the other.

    Raises:
        CannotPredict: See `Model.predict`.
        OSError: A file can't be read or written.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NotUnderstood)
        out = model.outputs(rows)
    for each in caught:
        sys.stderr.write(f"warning: {_visible(str(each.message))}\n")
    with sys.stdout if out_path == "-" else Path(out_path).open("w", encoding="utf-8", newline="") as file:
        _write(model, out, cast(TextIO, file))


def _write(model: Model, out: Tensor, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    predictions = model.decode(out).tolist()
    target, task = model.about["target"], model.about["task"]
    names = ["prediction"] if isinstance(target, str) else [_harmless(name) for name in target]
    rows = [row if isinstance(row, list) else [row] for row in predictions]
    if task == "regression":
        writer.writerow(names)
        writer.writerows(rows)
        return
    ends = model.about["classes"] if isinstance(target, str) else target
    writer.writerow([*names, *(f"probability of {end}" for end in ends)])
    shares = _shares(model.about, out).tolist()
    writer.writerows([*map(_harmless, row), *of_row] for row, of_row in zip(rows, shares, strict=True))


def _visible(text: str) -> str:
    """A text from a file for a terminal, which would obey control characters."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _harmless(label: str) -> str:
    """A label for a spreadsheet, which would run one that is a formula: with an apostrophe before it.

    Reference: OWASP, "CSV Injection". Numbers stay what they are.
    """
    formula = label[:1] in ("=", "+", "-", "@", "\t", "\r") and math.isnan(number_of(label))
    return f"'{label}" if formula else label
