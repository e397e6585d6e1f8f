"""A report as PDF, for a paper's appendix: A4, with the drawings of the page as vector graphics.

The standard fonts of PDF cover the Latin letters of Western Europe; others are written without accents, or as "?".
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, assert_never
from xml.sax.saxutils import escape

from reportlab.graphics import shapes
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.platypus import (
    Flowable,
    KeepTogether,
    Paragraph,
    Preformatted,
    SimpleDocTemplate,
    Spacer,
    TableStyle,
)
from reportlab.platypus import Table as PdfTable

from service.report.content import Block, Code, Figure, Report, Table, Text
from service.report.scene import FONT_SIZE, Box, Dot, Drawing, Line, Role, Shape, Words

_MARGIN = 56.0
_WIDTH = A4[0] - 2 * _MARGIN
_FIGURE_WIDTH = 330.0
_CODE_LETTERS = 96
_MAX_WORD = 90
"""Longer words in a cell, in letters, are cut into pieces."""

_COLOURS: Mapping[Role, str] = {
    "winner": "#0072b2",
    "baseline": "#d55e00",
    "other": "#7a8594",
    "good": "#00795a",
    "ink": "#111111",
    "soft": "#4a525c",
    "grid": "#dddddd",
    "paper": "#ffffff",
}
_INSTEAD = str.maketrans(
    {"–": "-", "−": "-", "…": "...", "λ": "lambda", "‖": "||", "·": "·", "←": "<-", "≤": "<=", "≥": ">="}
)
_BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=9.5, leading=13.5, spaceAfter=6)
_STYLES = {
    "body": _BODY,
    "title": ParagraphStyle("title", parent=_BODY, textColor=HexColor("#4a525c")),
    "verdict": ParagraphStyle("verdict", parent=_BODY, fontName="Helvetica-Bold", fontSize=15, leading=19, spaceAfter=8),
    "heading": ParagraphStyle(
        "heading", parent=_BODY, fontName="Helvetica-Bold", fontSize=12, spaceBefore=12, keepWithNext=1
    ),
    "caption": ParagraphStyle("caption", parent=_BODY, fontSize=8, leading=10.5, textColor=HexColor("#4a525c")),
    "cell": ParagraphStyle("cell", parent=_BODY, fontSize=8, leading=10, spaceAfter=0),
    "code": ParagraphStyle("code", parent=_BODY, fontName="Courier", fontSize=7.5, leading=9.2),
}


def to_pdf(report: Report) -> bytes:
    """The PDF document. Equal reports give equal bytes."""
    buffer = io.BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=_plain(report.title),
        author="regsearch",
        invariant=1,
    )
    document.build(list(_story(report)), onFirstPage=_numbered, onLaterPages=_numbered)
    return buffer.getvalue()


def _numbered(canvas: Any, _document: Any) -> None:
    canvas.setFont("Helvetica", 8)
    canvas.setFillColor(HexColor(_COLOURS["soft"]))
    canvas.drawRightString(A4[0] - _MARGIN, 32, str(canvas.getPageNumber()))


def _story(report: Report) -> Iterator[Flowable]:
    yield _paragraph(report.title, "title")
    yield _paragraph(report.verdict, "verdict")
    yield _paragraph(report.subtitle, "title")
    yield from _table(Table(("what", "value", ""), [(tile.name, tile.value, tile.detail) for tile in report.tiles]))
    for section in report.sections:
        heading = _paragraph(section.title, "heading")
        for block in section.blocks:
            flowables = list(_block(block))
            if isinstance(block, Figure):
                yield KeepTogether([*([heading] if block is section.blocks[0] else []), *flowables])
                continue
            if block is section.blocks[0]:
                yield heading  # its style keeps it with the next block
            yield from flowables


def _block(block: Block) -> Iterator[Flowable]:
    match block:
        case Text():
            yield _paragraph(block.text, "body")
        case Table():
            yield from _table(block)
        case Code():
            yield Preformatted(_plain(block.text), _STYLES["code"], maxLineLength=_CODE_LETTERS)
        case Figure():
            yield from (_drawn(block.drawing), _paragraph(block.caption, "caption"), Spacer(0, 6))
        case _:
            assert_never(block)


def _paragraph(text: str, style: str) -> Paragraph:
    return Paragraph(escape(_plain(text)), _STYLES[style])


def _table(table: Table) -> Iterator[Flowable]:
    if not table.rows:
        return
    rows = [[_paragraph(_broken(cell), "cell") for cell in row] for row in (table.head, *table.rows)]
    lines = TableStyle(
        [
            ("LINEBELOW", (0, 0), (-1, 0), 0.8, HexColor(_COLOURS["soft"])),
            ("LINEBELOW", (0, 1), (-1, -1), 0.3, HexColor(_COLOURS["grid"])),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
        ]
    )
    yield PdfTable(rows, colWidths=_columns(table), repeatRows=1, style=lines, hAlign="LEFT")
    yield Spacer(0, 8)


def _columns(table: Table) -> list[float]:
    """Widths by the longest cell of each column, within bounds."""
    longest = [max(len(row[place]) for row in (table.head, *table.rows)) for place in range(len(table.head))]
    wanted = [min(max(length, 5), 60) for length in longest]
    return [_WIDTH * each / sum(wanted) for each in wanted]


def _broken(text: str) -> str:
    """Text in which words too long for any column are cut into pieces."""
    words = text.split(" ")
    return " ".join(" ".join(word[at : at + _MAX_WORD] for at in range(0, len(word), _MAX_WORD)) or word for word in words)


def _plain(text: str) -> str:
    """Text in the characters that the standard fonts cover."""
    known = text.translate(_INSTEAD)
    return "".join(map(_letter, known))


def _letter(letter: str) -> str:
    try:
        letter.encode("cp1252")
    except UnicodeEncodeError:
        base = unicodedata.normalize("NFKD", letter).encode("cp1252", "ignore").decode("cp1252")
        return base or "?"
    return letter


def _drawn(drawing: Drawing) -> shapes.Drawing:
    scale = _FIGURE_WIDTH / drawing.width
    sheet = shapes.Drawing(drawing.width * scale, drawing.height * scale)
    group = shapes.Group(*map(partial(_shape, drawing.height), drawing.shapes))
    group.transform = (scale, 0, 0, scale, 0, 0)
    sheet.add(group)
    return sheet


def _shape(height: float, shape: Shape) -> shapes.Shape:
    """A shape in the coordinates of PDF, whose origin is the lower left corner."""
    match shape:
        case Line():
            flat = [value for x, y in shape.points for value in (x, height - y)]
            line = shapes.PolyLine(flat, strokeColor=_colour(shape.role, shape.opacity), strokeWidth=shape.width)
            if shape.dash:
                line.strokeDashArray = [5, 4]
            return line
        case Dot(ring=True):
            disc = shapes.Circle(shape.x, height - shape.y, shape.radius, strokeColor=_colour(shape.role), strokeWidth=1.4)
            disc.fillColor = _colour("paper")
            return disc
        case Dot():
            colour = _colour(shape.role, shape.opacity)
            return shapes.Circle(shape.x, height - shape.y, shape.radius, fillColor=colour, strokeColor=None)
        case Box():
            box = shapes.Rect(shape.x, height - shape.y - shape.height, shape.width, shape.height)
            box.setProperties({"fillColor": _colour(shape.role, shape.opacity), "strokeColor": None})
            return box
        case Words():
            words = shapes.String(shape.x, height - shape.y, _plain(shape.text), fillColor=_colour(shape.role))
            words.textAnchor = shape.anchor
            words.fontName = "Helvetica-Bold" if shape.bold else "Helvetica"
            words.fontSize = shape.size if shape.size != FONT_SIZE else FONT_SIZE - 0.5
            return words


def _colour(role: Role, opacity: float = 1.0) -> Color:
    colour = HexColor(_COLOURS[role])
    return Color(colour.red, colour.green, colour.blue, opacity)
