"""Loads a model of regsearch and predicts: this one file, needing torch, safetensors and NumPy, and nothing of the service.

    model = Model.load("directory of the unpacked archive")
    model.predict("new.csv")                    # a CSV file, a pandas DataFrame, or {column: values}
    python loader.py new.csv --out predictions.csv

Images and sequences come as an NPZ file with the array `x` (and `lengths`), or as arrays. Shapes: `r` rows, `o` outputs.
A column that training had must be there; others are ignored.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from workers.archive.rows import CannotPredict, Rows, features
from workers.models.embedding import Embeddings

FORMAT = 1
_ROWS_AT_ONCE = 4096


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
        if about["format"] != FORMAT:
            raise CannotPredict(f"this loader reads archives of format {FORMAT}, not of format {about['format']}")
        network = build(about["model"], Path(directory))
        network.load_state_dict(load_file(Path(directory) / "weights.safetensors"), strict=True)
        return cls(about, preprocessing, network.eval())

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
        x = torch.from_numpy(features(rows, self.preprocessing))
        return torch.cat([self.network(part) for part in torch.split(x, _ROWS_AT_ONCE)])


class Perceptron(nn.Sequential):
    """Layers in turn; behind those named in ``skips``, what went into the last linear layer is added."""

    def __init__(self, layers: OrderedDict[str, nn.Module], skips: Sequence[str]) -> None:
        super().__init__(layers)
        self.skips = set(skips)

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs) to (b, outputs)."""
        before = x
        for name, layer in self.named_children():
            if name.startswith("linear"):
                before = x
            x = layer(x) + before if name in self.skips else layer(x)
        return x


def mlp(shape: Mapping[str, Any]) -> nn.Module:
    """Embeddings of categories, if any; linear, normalization and activation (in either order) per hidden layer; a head."""
    activations = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh, "elu": nn.ELU}
    norms: dict[str, Callable[[int], nn.Module]] = {
        "batch": nn.BatchNorm1d,
        "layer": nn.LayerNorm,
        "group": lambda width: nn.GroupNorm(math.gcd(shape["groups"], width), width),
    }
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    skips: list[str] = []
    before = shape["inputs"]
    if shape["embeddings"]:
        layers["embeddings"] = embeddings = Embeddings(before, shape["embeddings"])
        before = embeddings.outputs
    for place, width in enumerate(shape["widths"], start=1):
        bias = shape["normalization"] != "batch" or shape["norm_after"]
        layers[f"linear{place}"] = nn.Linear(before, width, bias=bias)
        parts: list[tuple[str, nn.Module]] = [(f"act{place}", activations[shape["activation"]]())]
        if shape["normalization"] in norms:
            parts.insert(1 if shape["norm_after"] else 0, (f"norm{place}", norms[shape["normalization"]](width)))
        layers.update(parts)
        if shape["shortcuts"] and before == width:
            skips.append(parts[-1][0])
        before = width
    layers["head"] = nn.Linear(before, shape["outputs"])
    return Perceptron(layers, skips)


def cnn(shape: Mapping[str, Any], modules: Any) -> nn.Module:
    """A small residual network for images."""
    return cast(nn.Module, modules.Cnn(shape["inputs"][0], shape["outputs"], shape["widths"], **_chosen(shape, _CNN)))


def sequence(shape: Mapping[str, Any], modules: Any) -> nn.Module:
    """A network for series."""
    made = modules.SequenceModel(shape["inputs"][1], shape["outputs"], shape["widths"], **_chosen(shape, _SEQUENCE))
    return cast(nn.Module, made)


_COMMON = ("activation", "normalization", "groups", "pooling")
_CNN = (*_COMMON, "blocks", "shortcuts", "downsampling")
_SEQUENCE = (*_COMMON, "cell", "heads")


def _chosen(shape: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: shape[name] for name in names}


FAMILIES: Mapping[str, Callable[[Mapping[str, Any], Any], nn.Module]] = {"cnn": cnn, "sequence": sequence}
"""What builds the networks that have modules of their own, in the archive's networks.py."""


def build(shape: Mapping[str, Any], directory: Path) -> nn.Module:
    """A PyTorch module of this shape.

    Raises:
        CannotPredict: It is of a family that this loader does not know.
    """
    if shape["family"] == "mlp":
        return mlp(shape)
    if shape["family"] not in FAMILIES:
        raise CannotPredict(f"this loader knows no networks of the family {shape['family']!r}")
    found = importlib.util.spec_from_file_location("regsearch_networks", directory / "networks.py")
    assert found is not None, "the address of a file always has a loader"
    assert found.loader is not None, "see above"
    modules = importlib.util.module_from_spec(found)
    sys.modules[found.name] = modules
    found.loader.exec_module(modules)
    return FAMILIES[shape["family"]](shape, modules)


def main() -> None:
    """Predict from the command line."""
    parser = argparse.ArgumentParser(description="Predict rows of a CSV file with this model.")
    parser.add_argument("rows", help="a CSV file with the columns that training had, or an NPZ file with the array x")
    parser.add_argument("--out", default="-", help="where the predictions go; default: standard output")
    given = parser.parse_args()
    try:
        model = Model.load(Path(__file__).parent)
        out = model.outputs(given.rows)
        with sys.stdout if given.out == "-" else Path(given.out).open("w", encoding="utf-8", newline="") as file:
            _write(model, out, file)
    except (CannotPredict, OSError) as error:
        sys.exit(str(error))


def _write(model: Model, out: Tensor, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
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
