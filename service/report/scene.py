"""Drawings as plain shapes, so that one chart serves a web page (SVG) and a PDF alike.

Coordinates are in points from the upper left corner. A shape names a *role*, never a colour: the page's style gives each
role a colour for light and dark screens and for print. Independent of studies and charts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal, assert_never

Role = Literal["winner", "baseline", "other", "good", "ink", "soft", "grid", "paper"]
Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]

FONT_SIZE = 12.0
LETTER = 0.54
"""Mean width of a letter, in font sizes."""


@dataclass(frozen=True)
class Line:
    """A stroke through points; ``dash`` distinguishes lines where colour alone must not."""

    points: Sequence[Point]
    role: Role = "ink"
    width: float = 1.0
    dash: bool = False
    opacity: float = 1.0


@dataclass(frozen=True)
class Dot:
    """A filled disc, or a ring."""

    x: float
    y: float
    radius: float = 3.5
    role: Role = "ink"
    ring: bool = False
    opacity: float = 1.0
    tooltip: str = ""


@dataclass(frozen=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    role: Role = "ink"
    opacity: float = 1.0
    tooltip: str = ""


@dataclass(frozen=True)
class Words:
    """One line of text on the baseline ``y``."""

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    role: Role = "ink"
    bold: bool = False
    size: float = FONT_SIZE


Shape = Line | Dot | Box | Words


@dataclass
class Drawing:
    """Shapes on a sheet of ``width`` by ``height``; ``title`` describes it to readers who can't see it."""

    width: float
    height: float
    title: str
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        """Draw shapes on top of the present ones."""
        self.shapes.extend(shapes)


def shortened(text: str, width: float, size: float = FONT_SIZE) -> str:
    """Text cut to about ``width`` points."""
    letters = max(2, int(width / (LETTER * size)))
    return text if len(text) <= letters else text[: letters - 1] + "…"


def to_svg(drawing: Drawing) -> str:
    """The drawing as an `svg` element, coloured by the page's style sheet."""
    size = f'viewBox="0 0 {_n(drawing.width)} {_n(drawing.height)}"'
    label = f'role="img" aria-label="{escape(drawing.title)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>{"".join(_elements(drawing.shapes))}</svg>'


def _elements(shapes: Sequence[Shape]) -> Iterator[str]:
    for shape in shapes:
        match shape:
            case Line():
                points = " ".join(f"{_n(x)},{_n(y)}" for x, y in shape.points)
                dash = ' stroke-dasharray="5 4"' if shape.dash else ""
                faint = f' stroke-opacity="{_n(shape.opacity)}"' if shape.opacity < 1 else ""
                yield f'<polyline class="s {shape.role}" points="{points}" stroke-width="{_n(shape.width)}"{dash}{faint}/>'
            case Dot():
                kind = "ring" if shape.ring else "f"
                place = f'cx="{_n(shape.x)}" cy="{_n(shape.y)}" r="{_n(shape.radius)}"'
                yield f'<circle class="{kind} {shape.role}" {place}{_rest("circle", shape)}'
            case Box():
                place = f'x="{_n(shape.x)}" y="{_n(shape.y)}" width="{_n(shape.width)}" height="{_n(shape.height)}"'
                yield f'<rect class="f {shape.role}" {place}{_rest("rect", shape)}'
            case Words():
                anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
                bold = ' font-weight="600"' if shape.bold else ""
                size = "" if shape.size == FONT_SIZE else f' font-size="{_n(shape.size)}"'
                place = f'x="{_n(shape.x)}" y="{_n(shape.y)}"'
                yield f'<text class="f {shape.role}" {place}{anchor}{bold}{size}>{escape(shape.text)}</text>'
            case _:
                assert_never(shape)


def _rest(name: str, shape: Dot | Box) -> str:
    faint = f' opacity="{_n(shape.opacity)}"' if shape.opacity < 1 else ""
    return f"{faint}><title>{escape(shape.tooltip)}</title></{name}>" if shape.tooltip else f"{faint}/>"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
