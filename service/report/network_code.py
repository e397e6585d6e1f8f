"""A recipe's network as lines of Python, for the snippet: `make_model(inputs, outputs)` and what it needs.

They build the networks of `workers.models` from torch's own layers; a test compares both, output by output. Here are the
perceptron and what all families share; images and series have modules of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from service.report.embedding_code import embeddings
from service.spec import Recipe

ACTIVATIONS: Mapping[str, str] = {
    "relu": "nn.ReLU()",
    "gelu": "nn.GELU()",
    "silu": "nn.SiLU()",
    "tanh": "nn.Tanh()",
    "elu": "nn.ELU()",
}
_INITIALIZATIONS: Mapping[tuple[str, str], str] = {
    ("he", "uniform"): 'nn.init.kaiming_uniform_({}, nonlinearity="relu")',
    ("he", "normal"): 'nn.init.kaiming_normal_({}, nonlinearity="relu")',
    ("xavier", "uniform"): "nn.init.xavier_uniform_({})",
    ("xavier", "normal"): "nn.init.xavier_normal_({})",
}


def drawn(recipe: Recipe, weight: str) -> str:
    """The call that draws the initial values of ``weight``."""
    match recipe.word("init"):
        case "orthogonal":
            return f"nn.init.orthogonal_({weight}, gain=math.sqrt(2.0))"
        case "normal":
            return f"nn.init.normal_({weight}, std={number(recipe.number('init_std'))})"
        case word:
            return _INITIALIZATIONS[word, recipe.word("init_distribution")].format(weight)


def initialized(recipe: Recipe, layers: str) -> Iterator[str]:
    """Weights as the recipe draws them, biases zero, in the ``layers`` (types, as Python) of `model`."""
    yield "    for layer in model.modules():"
    yield f"        if isinstance(layer, {layers}):"
    yield f"            {drawn(recipe, 'layer.weight')}"
    yield "            if layer.bias is not None:"
    yield "                nn.init.zeros_(layer.bias)"


def dropped(rate: float, kind: str = "Dropout") -> list[str]:
    """A dropout layer, or none."""
    return [f"nn.{kind}({number(rate)})"] if rate else []


def mlp(recipe: Recipe) -> Iterator[str]:
    """The perceptron."""
    normalization, widths = recipe.word("normalization"), recipe.widths
    skips, embedded = recipe.flag("skip_connections"), recipe.integer("embedding") > 0
    if skips:
        yield "class Skip(nn.Sequential):"
        yield '    """Layers with a connection around them."""'
        yield ""
        yield "    def forward(self, x):"
        yield "        return x + super().forward(x)"
        yield ""
        yield ""
    if embedded:
        yield from embeddings(recipe)
        yield ""
        yield ""
    yield f"def make_model(inputs, outputs{', levels' if embedded else ''}):"
    if embedded:
        yield "    embeddings = Embeddings(inputs, levels)"
    yield "    model = nn.Sequential("
    yield from (f"        {layer}," for layer in dropped(recipe.number("input_dropout")))
    if embedded:
        yield "        embeddings,"
    before = first = "embeddings.outputs" if embedded else "inputs"
    for width, rate in zip(widths, recipe.layers("dropout", len(widths)), strict=False):
        layers = [*_hidden(recipe, before, width), *dropped(rate)]
        if not skips or before not in (first, str(width)):
            yield from (f"        {layer}," for layer in layers)
        else:
            kind = f"(Skip if {first} == {width} else nn.Sequential)" if before == first else "Skip"
            yield f"        {kind}({', '.join(layers)}),"
        before = str(width)
    yield f"        nn.Linear({before}, outputs),"
    yield "    )"
    yield from initialized(recipe, "nn.Linear")
    if normalization == "weight":
        yield "    *hidden, _ = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]"
        yield "    for layer in hidden:"
        yield "        nn.utils.parametrizations.weight_norm(layer)"
    yield "    return model"


def _hidden(recipe: Recipe, before: str, width: int) -> list[str]:
    """A hidden layer without its dropout."""
    normalization = recipe.word("normalization")
    after = recipe.word("normalization_position") == "after"
    norm = {
        "batch": f"nn.BatchNorm1d({width})",
        "layer": f"nn.LayerNorm({width})",
        "group": f"nn.GroupNorm(math.gcd({recipe.integer('normalization_groups')}, {width}), {width})",
    }.get(normalization)
    # Batch normalization behind it takes any bias away again.
    bias = ", bias=False" if normalization == "batch" and not after else ""
    layers = [norm, ACTIVATIONS[recipe.word("activation")]]
    ordered = layers[::-1] if after else layers
    return [f"nn.Linear({before}, {width}{bias})", *(layer for layer in ordered if layer)]


def number(value: float) -> str:
    """A number as Python reads it back, exactly."""
    return repr(float(value))
