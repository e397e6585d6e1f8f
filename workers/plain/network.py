"""From a recipe to a network: its shape (all that changes the graph), the module, its initial weights.

A family is one class in a module of its own, and one line in `FAMILIES`. It takes the shape of an example, the number of
outputs, and, by keyword, the settings of a recipe that it reads, under their own names.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .cnn import Cnn
from .foreign import ARGUMENT, Foreign
from .layers import Draw, MakesDropout, WeightNorm, no_dropout, state_of
from .members import MEANS
from .mlp import Mlp
from .sequence import SequenceModel

FAMILIES: Mapping[str, Callable[..., nn.Module]] = {"mlp": Mlp, "cnn": Cnn, "sequence": SequenceModel, "module": Foreign}

HEAD = "head."
"""How the names of the last layer's parameters begin, in every family of ours."""

OWN = "own"
"""The word of `init` for the initial weights that a module gives itself."""
_ROWS_AT_ONCE = 4096
_NUMBERS_AT_ONCE = 1 << 22
"""Of the largest layer's outputs: 16 MiB, of which a pass holds a few."""
_SEEN_ROWS = 4096
_NOT_SETTINGS = {"inputs", "outputs", "categories", "dropout", "several"}


@dataclass(frozen=True)
class Shape:
    """All that decides a network's graph: networks of equal shapes can be stacked, and exchange their weights.

    ``inputs`` is the shape of one example: (d,) of a table, (c, h, w) of an image, (t, c) of a series. The last inputs of a
    table are one-hot ``categories`` of this many levels each. ``settings`` are (name, value) of those that the family reads.
    """

    family: str
    inputs: tuple[int, ...]
    outputs: int
    settings: tuple[tuple[str, Any], ...] = ()
    categories: tuple[int, ...] = ()

    @property
    def module(self) -> str | None:
        """The name of a module of theirs; None for networks of ours."""
        return dict(self.settings).get("module")

    @classmethod
    def of(
        cls,
        recipe: Mapping[str, Any],
        inputs: Sequence[int],
        outputs: int,
        categories: Sequence[int] = (),
        several: str | None = None,
    ) -> Shape:
        """The shape that a recipe asks for on examples of the shape ``inputs``.

        Args:
            recipe: `family`, `widths`, and what else differs from the family's defaults.
            inputs, outputs, categories: As the attributes.
            several: The task where outputs are of several targets, which matters to members that are averaged.
        """
        family = FAMILIES[recipe["family"]]
        names = [*settings_of(recipe["family"]), *(name for name in recipe if name.startswith(ARGUMENT))]
        given = {name: recipe[name] for name in names if name in recipe}
        reduced = getattr(family, "reduced", None)
        used = reduced(given, categories) if reduced else given
        if several is not None and used.get("members", 1) > 1:
            used["several"] = several
        settings = tuple((name, _frozen(value)) for name, value in used.items())
        return cls(recipe["family"], tuple(inputs), outputs, settings, tuple(categories))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "family": self.family,
            "inputs": list(self.inputs),
            "outputs": self.outputs,
            "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in self.settings},
            "categories": list(self.categories),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Shape:
        """The inverse of `to_json`."""
        settings = tuple((name, _frozen(value)) for name, value in document["settings"].items())
        inputs, categories = tuple(document["inputs"]), tuple(document["categories"])
        return cls(document["family"], inputs, document["outputs"], settings, categories)


def settings_of(family: str) -> tuple[str, ...]:
    """The settings that a family reads.

    >>> "heads" in settings_of("sequence"), "heads" in settings_of("cnn")
    (True, False)
    """
    parameters = inspect.signature(FAMILIES[family]).parameters.values()
    return tuple(each.name for each in parameters if each.kind != each.VAR_KEYWORD and each.name not in _NOT_SETTINGS)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def build(shape: Shape, dropout: MakesDropout = no_dropout) -> nn.Module:
    """A network of this shape, with torch's default weights.

    Raises:
        KeyError: There is no such family.
    """
    common: dict[str, Any] = {"categories": shape.categories, "dropout": dropout}
    return FAMILIES[shape.family](shape.inputs, shape.outputs, **dict(shape.settings), **common)


def head_of(network: nn.Module) -> str:
    """How the names of the last layer's parameters begin."""
    return network.head if isinstance(network, Foreign) else HEAD


def lr_factors(network: nn.Module) -> dict[str, float]:
    """By what the learning rate of each parameter is multiplied, by its name; 1 in families without such settings."""
    own: Callable[[], dict[str, float]] | None = getattr(network, "lr_factors", None)
    return own() if own is not None else {name: 1.0 for name, _ in network.named_parameters()}


class Average(nn.Module):
    """Networks of one shape as one: (b, ...) to (b, outputs) that stand for the average of their predictions.

    Predictions are standardized numbers, or class probabilities, whose logarithms are the outputs, as logits are.
    """

    def __init__(self, members: Sequence[nn.Module], task: str) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._mean = MEANS[task]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self._mean(torch.stack([member(x) for member in self.members]))

    @staticmethod
    def names(number: int) -> str:
        """How the names of a member's weights begin."""
        return f"members.{number}."


def parts(weights: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The state dicts of the networks in that of an `Average`; of a single network its own."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        number, own = name.removeprefix("members.").split(".", 1) if name.startswith("members.") else ("", name)
        found.setdefault(number, {})[own] = value
    return [found[number] for number in sorted(found, key=lambda number: int(number or 0))]


def joined(networks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The inverse of `parts`."""
    if len(networks) == 1:
        return dict(networks[0])
    return {f"{Average.names(n)}{name}": value for n, own in enumerate(networks) for name, value in own.items()}


def trained(shape: Shape, weights: Mapping[str, Tensor], task: str) -> nn.Module:
    """A network of this shape with its weights, or the average of several if the weights are of such."""
    count = len(parts(weights))
    network = build(shape) if count == 1 else Average([build(shape) for _ in range(count)], task)
    load_weights(network, weights)
    return network


@torch.no_grad()
def outputs(network: nn.Module, x: Any) -> Tensor:
    """(r, o) outputs of a ``network`` in eval mode, always as many rows at once, for the last bit may depend on that.

    ``x`` is a tensor (r, ...), or something that gives one for a slice.
    """
    largest = int(getattr(network.members[0] if isinstance(network, Average) else network, "largest_activation", 1))
    size = max(1, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // largest))
    return torch.cat([network(x[start : start + size]) for start in range(0, max(1, len(x)), size)])


@torch.no_grad()
def adopt(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Overwrite parameters and statistics by name; a last layer that ``weights`` lacks stays as it is."""
    own = state_of(network)
    weights = network.fitting(weights) if isinstance(network, Foreign) else weights
    for name, value in weights.items():
        assert own[name].shape == value.shape, f"{name} is of another network"
        own[name].copy_(value)
    head = head_of(network)
    lacking = [name for name, _ in network.named_parameters() if name not in weights and not name.startswith(head)]
    assert not lacking, f"the weights are of another network, without {lacking}"


@torch.no_grad()
def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict, which may lack what is no state: other names of the same parameter, constants of a module.

    Raises:
        RuntimeError: It is of another network.
    """
    own = {**dict(network.named_parameters(remove_duplicate=False)), **state_of(network)}
    state = network.state_dict().keys() & state_of(network).keys()
    lacking = sorted(name for name in state - weights.keys() if own[name].dtype == torch.float32)
    others = [name for name, value in weights.items() if name not in own or own[name].shape != value.shape]
    if lacking or others:
        what = f"they lack {lacking[:5]}" if lacking else f"it has no {others[:5]} of these shapes"
        raise RuntimeError(f"the weights are of another network: {what}")
    for name, value in weights.items():
        own[name].copy_(value)


def spread(rows: Tensor) -> Tensor:
    """At most some thousand of ``rows`` (r, ...), at even distances: what a network sees of them as it is initialized."""
    return rows[:: -(-len(rows) // _SEEN_ROWS)]


def looks_at_examples(network: nn.Module, recipe: Mapping[str, Any]) -> bool:
    """Whether `initialize` makes something of training examples."""
    return bool(recipe.get("unit_variance")) or bool(getattr(network, "observes", False))


@torch.no_grad()
def initialize(network: nn.Module, recipe: Mapping[str, Any], seed: int, seen: Tensor | None = None) -> None:
    """Overwrite the weights of ``network`` with fresh ones as ``recipe`` asks, drawn from ``seed`` alone.

    What depends on the data, bins of numbers and ``unit_variance``, is made for the training examples ``seen`` (r, ...), on
    the network's device, and left as it is without them. A module of theirs initializes itself, unless ``init`` is given.

    Weights as ``init`` names them (`he` is fan in, gain √2; `orthogonal` has gain √2), embeddings standard normal (as
    numbers come scaled, and as `nn.Embedding` does); biases zero; normalization gains one and statistics reset. Layers with
    an ``initialize`` of their own do it themselves.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(network, Foreign):
        own = recipe.get("init", OWN) == OWN
        network.begin(seed, None if own else _draw_of(recipe, generator))
        return
    draw = _draw_of(recipe, generator)
    for module in network.modules():
        initialize_itself = getattr(module, "initialize", None)
        if initialize_itself is not None:
            initialize_itself(draw, generator)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            draw(module.weight)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=generator)
        elif isinstance(module, _BatchNorm):
            _reset(module)
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    if seen is not None:
        _show(network, recipe, seen)


def _draw_of(recipe: Mapping[str, Any], generator: torch.Generator) -> Draw:
    """What overwrites a weight as ``init`` says."""
    init = INITIALIZATIONS[recipe.get("init", "he"), recipe.get("init_distribution", "uniform")]
    return lambda weight: init(weight, recipe, generator)


def _show(network: nn.Module, recipe: Mapping[str, Any], seen: Tensor) -> None:
    """What `initialize` makes for the training examples ``seen``."""
    observe: Callable[[Tensor], None] | None = getattr(network, "observe", None)
    if observe is not None:
        observe(seen)
    if recipe.get("unit_variance"):
        _to_unit_variance(network, seen)


def _to_unit_variance(network: nn.Module, seen: Tensor) -> None:
    """Divide the weights of every linear layer and convolution by the standard deviation of its outputs, from first to last.

    One pass does it, as a layer's scaled outputs are what the next one sees. Reference: Mishkin and Matas, "All you need is
    a good init" (ICLR 2016), whose further passes change nothing for layers without a bias.
    """

    def scale(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        deviation = out.std()
        if not deviation > 0:  # it sees nothing but zeros
            return out
        weight = layer.weight_g if isinstance(layer, WeightNorm) else layer.weight
        assert isinstance(weight, Tensor), "these layers have one"
        weight.div_(deviation)
        return out / deviation

    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d | WeightNorm)]
    handles = [layer.register_forward_hook(scale) for layer in layers]
    training = network.training
    try:
        network.eval()(seen)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()


def _reset(module: _BatchNorm) -> None:
    """As its own `reset_parameters`, which needs the count of batches that a stack does without."""
    for ones, zeros in ((module.weight, module.bias), (module.running_var, module.running_mean)):
        assert ones is not None, "no network leaves any of these out"
        assert zeros is not None, "see above"
        ones.fill_(1.0)
        zeros.zero_()


Initialization = Callable[[Tensor, Mapping[str, Any], torch.Generator], Any]


def _normal(weight: Tensor, recipe: Mapping[str, Any], generator: torch.Generator) -> None:
    nn.init.normal_(weight, std=recipe.get("init_std", 0.05), generator=generator)


def _orthogonal(weight: Tensor, recipe: Mapping[str, Any], generator: torch.Generator) -> None:
    nn.init.orthogonal_(weight, gain=math.sqrt(2.0), generator=generator)


INITIALIZATIONS: Mapping[tuple[str, str], Initialization] = {
    ("he", "uniform"): lambda w, _, generator: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=generator),
    ("he", "normal"): lambda w, _, generator: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=generator),
    ("xavier", "uniform"): lambda w, _, generator: nn.init.xavier_uniform_(w, generator=generator),
    ("xavier", "normal"): lambda w, _, generator: nn.init.xavier_normal_(w, generator=generator),
    ("normal", "uniform"): _normal,
    ("normal", "normal"): _normal,
    ("orthogonal", "uniform"): _orthogonal,
    ("orthogonal", "normal"): _orthogonal,
}
"""By `init` and `init_distribution`, which counts for he and xavier only."""
