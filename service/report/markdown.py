"""A report as Markdown, for a paper's appendix or a pull request: figures become their captions and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from service.report.content import Block, Code, Figure, Report, Table, Text

_SPECIAL = "\\`*_[]<>|#"


def to_markdown(report: Report) -> str:
    """The report in GitHub-flavoured Markdown."""
    lines = [f"# {_plain(report.title)}", "", f"**{_plain(report.verdict)}**", "", _plain(report.subtitle), ""]
    lines += _table(Table(("what", "value", ""), [(tile.name, tile.value, tile.detail) for tile in report.tiles]))
    for section in report.sections:
        lines += [f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            lines += _block(block)
    return "\n".join(lines)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text():
            yield from (_plain(block.text), "")
        case Table():
            yield from _table(block)
        case Code():
            yield from (f"```{block.language}", block.text.rstrip(), "```", "")
        case Figure():
            if block.table is not None:
                yield from _table(block.table)
                yield from (f"*{_plain(block.caption)}*", "")
        case _:
            assert_never(block)


def _table(table: Table) -> Iterator[str]:
    if table.rows:
        yield _row(table.head)
        yield _row(["---"] * len(table.head), plain=False)
        yield from map(_row, table.rows)
        yield ""


def _row(cells: Sequence[str], *, plain: bool = True) -> str:
    return f"| {' | '.join(_plain(cell) if plain else cell for cell in cells)} |"


def _plain(text: str) -> str:
    """Text without line breaks, in which Markdown's special characters are escaped."""
    escaped = "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in text)
    return " ".join(escaped.split())
