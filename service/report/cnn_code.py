"""The network for images as lines of Python, for the snippet: that of `workers.models.cnn`, from torch's own layers."""

from __future__ import annotations

from collections.abc import Iterator

from service.report.network_code import ACTIVATIONS, dropped, initialized
from service.spec import Recipe

_NORMS = {
    "none": "nn.Identity()",
    "weight": "nn.Identity()",
    "batch": "nn.BatchNorm2d(channels)",
    "layer": "nn.GroupNorm(1, channels)",
    "instance": "nn.GroupNorm(channels, channels)",
    "group": "nn.GroupNorm(math.gcd({groups}, channels), channels)",
    "local_response": "nn.LocalResponseNorm(5)",
}
_HALVING = {
    "strided": "nn.Identity()",
    "max": "nn.MaxPool2d(2, ceil_mode=True) if halve else nn.Identity()",
    "average": "nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False) if halve else nn.Identity()",
}
_POOLING = {"mean": "nn.AdaptiveAvgPool2d(1)", "max": "nn.AdaptiveMaxPool2d(1)"}


def cnn(recipe: Recipe) -> Iterator[str]:
    """Convolution and normalization, a block of two of them, and the network."""
    yield from _parts(recipe)
    yield ""
    yield ""
    yield from _block(recipe)
    yield ""
    yield ""
    yield "def make_model(inputs, outputs):"
    yield "    model = nn.Sequential("
    yield from (f"        {layer}," for layer in _layers(recipe))
    yield "    )"
    yield from initialized(recipe, "(nn.Linear, nn.Conv2d)")
    if recipe.word("normalization") == "weight":
        yield "    for layer in list(model.modules()):"
        yield "        if isinstance(layer, nn.Conv2d):"
        yield "            nn.utils.parametrizations.weight_norm(layer)"
    yield "    return model"


def _parts(recipe: Recipe) -> Iterator[str]:
    normalization = recipe.word("normalization")
    # A normalization with gain and shift of its own takes any bias away again, or has it twice.
    bias = "" if normalization in ("none", "local_response", "weight") else ", bias=False"
    yield "def conv(before, after, size=3, stride=1):"
    yield f"    return nn.Conv2d(before, after, size, stride, size // 2{bias})"
    yield ""
    yield ""
    yield "def norm(channels):"
    yield f"    return {_NORMS[normalization].format(groups=recipe.integer('normalization_groups'))}"


def _block(recipe: Recipe) -> Iterator[str]:
    shortcuts, downsampling = recipe.flag("shortcuts"), recipe.word("downsampling")
    around = " and a shortcut around them" if shortcuts else ""
    yield "class Block(nn.Module):"
    yield f'    """Two convolutions{around}; the first one may halve the resolution."""'
    yield ""
    yield "    def __init__(self, before, after, halve=False):"
    yield "        super().__init__()"
    yield f"        stride = {'2 if halve else 1' if downsampling == 'strided' else '1'}"
    yield f"        self.pool = {_HALVING[downsampling]}"
    yield "        self.conv1, self.norm1 = conv(before, after, stride=stride), norm(after)"
    yield "        self.conv2, self.norm2 = conv(after, after), norm(after)"
    yield f"        self.activation = {ACTIVATIONS[recipe.word('activation')]}"
    if shortcuts:
        yield "        same = before == after and stride == 1"
        yield "        self.shortcut = nn.Identity() if same else conv(before, after, size=1, stride=stride)"
    yield ""
    yield "    def forward(self, x):"
    yield "        x = self.pool(x)"
    yield "        out = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))"
    yield f"        return self.activation(out{' + self.shortcut(x)' if shortcuts else ''})"


def _layers(recipe: Recipe) -> Iterator[str]:
    widths = recipe.widths
    yield from dropped(recipe.number("input_dropout"))
    yield f"conv(inputs, {widths[0]}), norm({widths[0]}), {ACTIVATIONS[recipe.word('activation')]}"
    before = widths[0]
    for stage, (width, rate) in enumerate(zip(widths, recipe.layers("dropout", len(widths)), strict=False)):
        for index in range(recipe.integer("blocks")):
            yield f"Block({before}, {width}{', halve=True' if stage and not index else ''})"
            before = width
        yield from dropped(rate, "Dropout2d")
    yield f"{_POOLING[recipe.word('pooling')]}, nn.Flatten()"
    yield from dropped(recipe.number("head_dropout"))
    yield f"nn.Linear({before}, outputs)"
