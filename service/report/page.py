"""A report as one self-contained HTML page: styles and drawings are inline, and there are no scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from service.report.content import Block, Figure, Report
from service.report.live import Row
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


def to_html(report: Report, script: str = "") -> str:
    """The page. All text is escaped; only drawings, which escape their own text, are inserted as they are.

    ``script`` is for a page that a service keeps current; a report has none.
    """
    template = _environment().get_template("page.html.j2")
    return template.render(report=report, style=_style(), svg=_markup, kinds=_kinds, script=Markup(script))


def home_page(rows: Sequence[Row], *, total: int, wanted: str, tag: str, script: str) -> str:
    """The page of all studies: ``rows`` of ``total``, those whose name has ``wanted`` in it, or with a ``tag``."""
    template = _environment().get_template("home.html.j2")
    return template.render(rows=rows, total=total, wanted=wanted, tag=tag, style=_style(), script=Markup(script))


def new_study_page(presets: Sequence[str], script: str) -> str:
    """The page on which a person submits a study."""
    template = _environment().get_template("new.html.j2")
    return template.render(presets=presets, style=_style(), script=Markup(script))


def file_of_templates(name: str) -> str:
    """A file beside the templates, as it is."""
    environment = _environment()
    assert environment.loader is not None, "it has one"
    return environment.loader.get_source(environment, name)[0]


def _style() -> Markup:
    return Markup(file_of_templates("style.css"))


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
