"""Networks for series as lines of Python, for the snippet: those of `workers.models.sequence`, from torch's own layers.

Padding is NaN, as there. `nn.GRU` may run over it, as no state depends on what follows; normalization sees real steps only.
"""

from __future__ import annotations

from collections.abc import Iterator

from service.report.network_code import ACTIVATIONS, drawn, dropped, initialized, number
from service.spec import Recipe

_NORMS = {"batch": "nn.BatchNorm1d({width})", "layer": "nn.LayerNorm({width})", "group": "nn.GroupNorm({groups}, {width})"}

_ON_STEPS = '''\
def on_steps(norm, x, real):
    """Normalize the real steps (b, t) of x (b, t, d)."""
    out = torch.zeros_like(x)
    out[real] = norm(x[real])
    return out
'''
_POSITIONS = '''\
def positions(steps, width):
    """(steps, width) sines and cosines of the place of every step."""
    wave = torch.arange(0, width, 2)
    angle = torch.arange(steps)[:, None] * torch.exp(-math.log(10000.0) * wave / width)
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :width]
'''
_ATTENTION = '''\
class Attention(nn.Module):
    """Self-attention to the real steps, of (b, t, width)."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)

    def forward(self, x, real):
        b, t, d = x.shape
        parts = self.query_key_value(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mask = torch.where(real, 0.0, torch.finfo(x.dtype).min)[:, None, None, :]
        attended = F.scaled_dot_product_attention(*parts, attn_mask=mask)
        return self.merge(attended.transpose(1, 2).reshape(b, t, d))
'''
_POOLING = {
    "mean": (
        "counted = real[..., None].to(x.dtype)",
        "x = (x * counted).sum(1) / counted.sum(1).clamp(min=1.0)",
    ),
    "max": (
        "highest = x.masked_fill(~real[..., None], torch.finfo(x.dtype).min).amax(1)",
        "x = torch.where(real.any(1)[:, None], highest, 0.0)",
    ),
    "last": ("x = x[torch.arange(len(x)), real.sum(1) - 1] * real.any(1)[:, None]",),
}


def sequence(recipe: Recipe) -> Iterator[str]:
    """The functions and classes that this recipe needs, and the network."""
    transformer = recipe.word("cell") == "transformer"
    if recipe.word("normalization") != "none":
        yield from _lines(_ON_STEPS)
    if transformer:
        yield from _lines(_POSITIONS)
        yield from _lines(_ATTENTION)
    yield from _encoder_layer(recipe) if transformer else _recurrent_layer(recipe)
    yield ""
    yield ""
    yield from _model(recipe, transformer)
    yield ""
    yield ""
    yield "def make_model(inputs, outputs):"
    yield "    model = Model(inputs, outputs)"
    yield from initialized(recipe, "nn.Linear")
    if not transformer:
        yield "        elif isinstance(layer, nn.GRU):"
        yield "            with torch.no_grad():"
        yield "                for gate in layer.weight_ih_l0.chunk(3):"
        yield f"                    {drawn(recipe, 'gate')}"
        yield "                for gate in layer.weight_hh_l0.chunk(3):"
        yield "                    nn.init.orthogonal_(gate)"
        yield "            nn.init.zeros_(layer.bias_ih_l0)"
        yield "            nn.init.zeros_(layer.bias_hh_l0)"
    yield "    return model"


def _lines(text: str) -> Iterator[str]:
    yield from text.splitlines()
    yield ""
    yield ""


def _norm(recipe: Recipe, place: str) -> list[str]:
    """The line that makes a normalization, if there is one."""
    made = _NORMS.get(recipe.word("normalization"))
    groups = f"math.gcd({recipe.integer('normalization_groups')}, width)"
    return [f"        self.{place} = {made.format(width='width', groups=groups)}"] if made else []


def _recurrent_layer(recipe: Recipe) -> Iterator[str]:
    norm = _norm(recipe, "norm")
    yield "class Layer(nn.Module):"
    yield "    def __init__(self, before, width, dropout):"
    yield "        super().__init__()"
    yield "        self.gru = nn.GRU(before, width, batch_first=True)"
    yield from norm
    yield "        self.dropout = nn.Dropout(dropout)"
    yield ""
    yield "    def forward(self, x, real):"
    yield "        x, _ = self.gru(x)"
    yield f"        return self.dropout({'on_steps(self.norm, x, real)' if norm else 'x'})"


def _encoder_layer(recipe: Recipe) -> Iterator[str]:
    first, second = _norm(recipe, "norm1"), _norm(recipe, "norm2")
    normal = ("on_steps(self.norm{}, x, real)" if first else "x").format
    yield "class Layer(nn.Module):"
    yield '    """Attention and a perceptron, each with normalization in front and a shortcut around it."""'
    yield ""
    yield "    def __init__(self, before, width, dropout):"
    yield "        super().__init__()"
    yield "        self.project = nn.Identity() if before == width else nn.Linear(before, width)"
    yield from first
    yield f"        self.attention = Attention(width, math.gcd({recipe.integer('heads')}, width))"
    yield from second
    yield "        self.widen = nn.Linear(width, 4 * width)"
    yield f"        self.activation = {ACTIVATIONS[recipe.word('activation')]}"
    yield "        self.narrow = nn.Linear(4 * width, width)"
    yield "        self.dropout = nn.Dropout(dropout)"
    yield ""
    yield "    def forward(self, x, real):"
    yield "        x = self.project(x)"
    yield f"        x = x + self.dropout(self.attention({normal(1)}, real))"
    yield f"        return x + self.dropout(self.narrow(self.activation(self.widen({normal(2)}))))"


def _model(recipe: Recipe, transformer: bool) -> Iterator[str]:
    widths = recipe.widths
    rates = recipe.layers("dropout", len(widths))
    before = str(widths[0]) if transformer else "inputs"
    yield "class Model(nn.Module):"
    yield "    def __init__(self, inputs, outputs):"
    yield "        super().__init__()"
    yield f"        self.input_dropout = nn.Dropout({number(recipe.number('input_dropout'))})"
    if transformer:
        yield f"        self.embed = nn.Linear(inputs, {widths[0]})"
    yield "        self.layers = nn.ModuleList(["
    for width, rate in zip(widths, rates, strict=False):
        yield f"            Layer({before}, {width}, dropout={number(rate)}),"
        before = str(width)
    yield "        ])"
    head = ", ".join([*dropped(recipe.number("head_dropout")), f"nn.Linear({before}, outputs)"])
    yield f"        self.head = nn.Sequential({head})"
    yield ""
    yield "    def forward(self, x):"
    yield '        """x (b, t, inputs); behind the end of a series there is NaN."""'
    yield "        real = ~x.isnan().any(2)"
    yield "        x = self.input_dropout(torch.where(real[..., None], x, 0.0))"
    if transformer:
        yield "        x = self.embed(x)"
        yield f"        x = x + positions(x.shape[1], {widths[0]}).to(x.device)"
    yield "        for layer in self.layers:"
    yield "            x = layer(x, real)"
    yield from (f"        {line}" for line in _POOLING[recipe.word("pooling")])
    yield "        return self.head(x)"
