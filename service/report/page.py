"""A report as one self-contained HTML page: styles and drawings are inline, and there are no scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from service.report.content import Block, Figure, Report
from service.report.scene import Drawing, to_svg


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("service.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def to_html(report: Report) -> str:
    """The page. All text is escaped; only drawings, which escape their own text, are inserted as they are."""
    environment = _environment()
    style = environment.loader.get_source(environment, "style.css")[0] if environment.loader else ""
    template = environment.get_template("page.html.j2")
    return template.render(report=report, style=Markup(style), svg=_markup, kinds=_kinds)


def _markup(drawing: Drawing) -> Markup:
    return Markup(to_svg(drawing))


def _kinds(blocks: Sequence[Block]) -> Iterator[tuple[str, Block]]:
    """Every block with its kind. A figure without a neighbour is `Only`: it takes the whole width, caption to its side."""
    place = 0
    while place < len(blocks):
        block = blocks[place]
        following = blocks[place + 1] if place + 1 < len(blocks) else None
        if not isinstance(block, Figure):
            yield type(block).__name__, block
        elif block.wide or not isinstance(following, Figure) or following.wide:
            yield "Only", block
        else:
            yield "Figure", block
            yield "Figure", following
            place += 1
        place += 1
