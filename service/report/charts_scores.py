"""Charts of scores: settings with their intervals, ablation, importances, the generalization gap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from service.report.axes import Scale, bottom_axis, number
from service.report.scene import Box, Dot, Drawing, Line, Role, Words, shortened
from service.result import Interval, Spread

WIDTH = 460.0
_LABELS = 138.0
_ROW = 30.0
_RIGHT = WIDTH - 14


def intervals(rows: Sequence[tuple[str, Role, Interval, Spread]], metric: str) -> Drawing:
    """Settings by test score: a dot with its 95 % interval, and a ring for the mean on validation rows."""
    drawing = Drawing(WIDTH, 14 + _ROW * len(rows) + 40, f"Test {metric} of {len(rows)} settings with 95 % intervals")
    values = [value for _, _, test, valid in rows for value in (test.low, test.high, valid.mean)]
    scale = Scale.around(values, _LABELS, _RIGHT)
    bottom_axis(drawing, scale, 14 + _ROW * len(rows), metric, top=8)
    for place, (name, role, test, valid) in enumerate(rows):
        y = 14 + _ROW * (place + 0.5)
        bold = role in ("winner", "baseline")
        drawing.add(
            Words(_LABELS - 10, y + 4, shortened(name, _LABELS - 12), "end", "ink" if bold else "soft", bold),
            Line([(scale(test.low), y), (scale(test.high), y)], role, 2.5 if bold else 1.5),
            Dot(scale(valid.mean), y, 4, role, ring=True, tooltip=f"{name}: validation {number(valid.mean)}"),
            Dot(scale(test.mean), y, 5 if bold else 4, role, tooltip=_interval(name, test)),
        )
    return drawing


def _interval(name: str, test: Interval) -> str:
    return f"{name}: test {number(test.mean)}, 95 % interval {number(test.low)} to {number(test.high)}"


def changes(rows: Sequence[tuple[str, float, float, float]], label: str, title: str) -> Drawing:
    """Bars from zero with whiskers for intervals; ``rows`` are name, value, low, high, both NaN without an interval."""
    drawing = Drawing(WIDTH, 14 + _ROW * len(rows) + 40, title)
    values = [0.0, *(value for _, *found in rows for value in found)]
    scale = Scale.around(values, _LABELS, _RIGHT)
    bottom = 14 + _ROW * len(rows)
    bottom_axis(drawing, scale, bottom, label, top=8)
    for place, (name, value, low, high) in enumerate(rows):
        y = 14 + _ROW * (place + 0.5)
        left, right = sorted((scale(0.0), scale(value)))
        role: Role = "winner" if value >= 0 else "baseline"
        drawing.add(
            Words(_LABELS - 10, y + 4, shortened(name, _LABELS - 12), "end"),
            Box(left, y - 8, max(1.0, right - left), 16, role, tooltip=f"{name}: {number(value)}"),
        )
        if math.isfinite(low) and math.isfinite(high):
            drawing.add(
                Line([(scale(low), y), (scale(high), y)], "ink", 1.5),
                *(Line([(scale(end), y - 4), (scale(end), y + 4)], "ink", 1.5) for end in (low, high)),
            )
    drawing.add(Line([(scale(0.0), 8), (scale(0.0), bottom)], "ink"))
    return drawing


def shares(rows: Sequence[tuple[str, Sequence[float | None]]], kinds: Sequence[str], title: str) -> Drawing:
    """Shares of a whole in percent: for every name a bar per kind, the second kind in a lighter colour."""
    roles: tuple[Role, ...] = ("winner", "other")
    drawing = Drawing(WIDTH, 34 + _ROW * len(rows) + 24, title)
    scale = Scale(
        0.0, max([0.1, *(value for _, found in rows for value in found if value is not None)]), _LABELS, _RIGHT - 34
    )
    legend(drawing, [(kind, roles[index], False) for index, kind in enumerate(kinds)], _LABELS)
    height = 20.0 / len(kinds)
    for place, (name, found) in enumerate(rows):
        y = 34 + _ROW * (place + 0.5)
        drawing.add(Words(_LABELS - 10, y + 4, shortened(name, _LABELS - 12), "end"))
        for index, value in enumerate(found):
            if value is None:
                continue
            top = y - 9 + index * height
            end = scale(value)
            drawing.add(Box(_LABELS, top, max(1.0, end - _LABELS), height - 1, roles[index], tooltip=f"{name}: {value:.0%}"))
            drawing.add(Words(end + 4, top + height - 1.5, f"{value:.0%}", "start", "soft", size=10))
    return drawing


def gap(rows: Sequence[tuple[str, Role, Sequence[tuple[str, float]]]], metric: str) -> Drawing:
    """Scores of each setting on training, validation and test rows, joined by a line: the longer, the more it overfits."""
    drawing = Drawing(WIDTH, 20 + 52 * len(rows) + 40, f"{metric} on training, validation and test rows")
    scale = Scale.around([value for _, _, found in rows for _, value in found], _LABELS, _RIGHT, margin=0.1)
    bottom = 20 + 52.0 * len(rows)
    bottom_axis(drawing, scale, bottom, metric, top=8)
    for place, (name, role, found) in enumerate(rows):
        y = 20 + 52.0 * (place + 0.5)
        drawing.add(Words(_LABELS - 10, y + 4, shortened(name, _LABELS - 12), "end", "ink", bold=True))
        drawing.add(Line([(scale(value), y) for _, value in found], role, 2))
        for index, (part, value) in enumerate(found):
            above = index != 1
            drawing.add(
                Dot(scale(value), y, 5, role, ring=index == 0, tooltip=f"{name}, {part}: {number(value)}"),
                Words(scale(value), y - 9 if above else y + 18, part, "middle", "soft", size=11),
            )
    return drawing


def legend(drawing: Drawing, entries: Sequence[tuple[str, Role, bool]], x: float, y: float = 14.0) -> None:
    """Names of roles, each after a sample of its line."""
    for name, role, dash in entries:
        drawing.add(Line([(x, y - 4), (x + 22, y - 4)], role, 2.5, dash), Words(x + 28, y, name, "start", "soft"))
        x += 46 + 0.56 * 12 * len(name)
