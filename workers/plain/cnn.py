"""A small residual network for images: a stem, stages of blocks, global pooling, a linear head.

Every stage but the first halves the resolution. Shapes: `b` images, `c` channels, `h`, `w` pixels.
Reference: He et al., "Deep Residual Learning" (CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from .layers import ACTIVATIONS, CHANNEL_NORMS, MakesDropout, convolution, no_dropout

HALVING: Mapping[str, Callable[[], nn.Module]] = {
    "strided": nn.Identity,
    "max": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "average": lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
}
"""What stands before the first convolution of a block that halves the resolution; odd sizes are rounded up, as a convolution
of stride 2 rounds them."""

POOLING: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean((2, 3)),
    "max": lambda x: x.amax((2, 3)),
}
"""(b, c, h, w) to (b, c)."""


class Block(nn.Module):
    """Two convolutions, with a shortcut around them if ``shortcuts``; ``halve``: how the resolution is halved, if it is."""

    def __init__(
        self,
        before: int,
        after: int,
        *,
        halve: str | None,
        shortcuts: bool,
        activation: str,
        normalization: str,
        groups: int,
    ) -> None:
        super().__init__()
        stride = 2 if halve == "strided" else 1
        self.pool = HALVING[halve]() if halve else nn.Identity()
        self.conv1 = convolution(before, after, normalization, stride=stride)
        self.norm1 = CHANNEL_NORMS[normalization](after, groups)
        self.conv2 = convolution(after, after, normalization)
        self.norm2 = CHANNEL_NORMS[normalization](after, groups)
        self.activation = ACTIVATIONS[activation]()
        self.shortcut: nn.Module | None = None
        if shortcuts:
            same = before == after and stride == 1
            self.shortcut = nn.Identity() if same else convolution(before, after, normalization, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(b, before, h, w) to (b, after, ⌈h/2⌉, ⌈w/2⌉), or with h and w as they were."""
        x = self.pool(x)
        out: Tensor = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        activated: Tensor = self.activation(out)
        return activated


class Cnn(nn.Module):
    """Shapes: (b, c, h, w) to (b, outputs). ``widths`` are the channels of the stages.

    The keywords but ``categories`` (of which images have none) and ``dropout`` are settings of a recipe.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        *,
        widths: Sequence[int] = (16, 32, 64),
        activation: str = "relu",
        normalization: str = "none",
        normalization_groups: int = 8,
        blocks: int = 1,
        shortcuts: bool = True,
        downsampling: str = "strided",
        pooling: str = "mean",
        categories: Sequence[int] = (),
        dropout: MakesDropout = no_dropout,
    ) -> None:
        super().__init__()
        channels, height, width = inputs
        self.input_dropout = dropout("input_dropout")
        self.stem = nn.Sequential(
            convolution(channels, widths[0], normalization),
            CHANNEL_NORMS[normalization](widths[0], normalization_groups),
            ACTIVATIONS[activation](),
        )
        self.stages = nn.ModuleList()
        before = widths[0]
        common = {"activation": activation, "normalization": normalization}
        for number, after in enumerate(widths):
            stage = nn.Sequential()
            for index in range(blocks):
                halve = downsampling if number and not index else None
                stage.append(Block(before, after, halve=halve, shortcuts=shortcuts, groups=normalization_groups, **common))
                before = after
            stage.append(dropout("dropout", number, channels=True))
            self.stages.append(stage)
        self.pooled = POOLING[pooling]
        self.head_dropout = dropout("head_dropout")
        self.head = nn.Linear(before, outputs)
        self.largest_activation = max(channels, widths[0]) * height * width

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) to logits, or standardized predictions of a regression, (b, outputs)."""
        x = self.stem(self.input_dropout(x))
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.head(self.head_dropout(self.pooled(x)))
        return out
