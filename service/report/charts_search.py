"""Charts of a search: its history, its trials in parallel coordinates, and mean values by setting.

The axes of the parallel coordinates are horizontal, one below the other, so that labels are readable on a narrow screen.
Reference: Inselberg, "The plane with parallel coordinates", The Visual Computer 1 (1985).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from service.report.axes import Scale, bottom_axis, left_axis, number, robust_range
from service.report.charts_scores import WIDTH, legend
from service.report.scene import LETTER, Anchor, Box, Dot, Drawing, Line, Role, Words, shortened
from service.result import ChoiceBin, Effect, RangeBin
from service.store.records import TrialRecord

_LEFT, _TOP, _BOTTOM, _RIGHT = 52.0, 44.0, 276.0, WIDTH - 12
_HEIGHT = 320.0
_AXIS_GAP = 48.0
_MAX_DOTS = 1500
_MAX_LINES = 250
_MAX_AXES = 14
_LOG_FROM = 30.0


def history(trials: Sequence[TrialRecord], metric: str, *, minimize: bool, winner: int | None) -> Drawing:
    """Values of trials by number, and the best so far. Pruned trials are rings at their best value."""
    valued = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    drawing = Drawing(WIDTH, _HEIGHT, f"Validation {metric} of {len(valued)} trials by number")
    complete = [trial.value or 0.0 for trial in valued if trial.state == "complete"]
    low, high = robust_range(complete or [trial.value or 0.0 for trial in valued], 0.92)
    y = Scale.around((low, high), _BOTTOM, _TOP)
    x = Scale(0.0, max((trial.number for trial in valued), default=1) or 1, _LEFT + 6, _RIGHT)
    left_axis(drawing, y, _LEFT, f"validation {metric}", right=_RIGHT)
    bottom_axis(drawing, x, _BOTTOM, "trial", top=_TOP)
    for trial in _thinned(valued, _MAX_DOTS):
        pruned = trial.state != "complete"
        tooltip = f"trial {trial.number}, {trial.stop_reason}: {number(trial.value)}"
        at = (x(trial.number), y(trial.value or 0.0))
        drawing.add(Dot(*at, 2.5 if pruned else 3.2, "other", ring=pruned, opacity=0.8, tooltip=tooltip))
    drawing.add(Line([(x(n), y(value)) for n, value in _best_so_far(valued, minimize=minimize)], "winner", 2))
    chosen = next((trial for trial in valued if trial.number == winner), None)
    if chosen is not None:
        drawing.add(Dot(x(chosen.number), y(chosen.value or 0.0), 6, "winner", tooltip=f"trial {chosen.number}, the winner"))
    legend(drawing, [("best so far", "winner", False)], _RIGHT - 110)
    return drawing


def _best_so_far(trials: Sequence[TrialRecord], *, minimize: bool) -> list[tuple[float, float]]:
    """Corners of the step line of the best complete value so far."""
    corners: list[tuple[float, float]] = []
    best = math.inf
    sign = 1.0 if minimize else -1.0
    for trial in trials:
        if trial.state == "complete" and sign * (trial.value or 0.0) < best:
            if corners:
                corners.append((trial.number, corners[-1][1]))
            best = sign * (trial.value or 0.0)
            corners.append((trial.number, trial.value or 0.0))
    if corners and trials:
        corners.append((trials[-1].number, corners[-1][1]))
    return corners


@dataclass(frozen=True)
class Axis:
    """One setting's axis: the positions of its values and its tick labels, in points from the left."""

    name: str
    places: Mapping[Any, float]
    scale: Scale | None
    marks: Sequence[tuple[float, str]]

    def __call__(self, value: Any) -> float | None:
        """The position of a value; None where it has none."""
        if value in self.places:
            return self.places[value]
        return self.scale(float(value)) if self.scale is not None and isinstance(value, int | float) else None


def parallel(trials: Sequence[TrialRecord], metric: str, *, minimize: bool, winner: int | None) -> Drawing | None:
    """Complete trials as lines through an axis per searched setting; the best tenth is coloured. None for too few."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    drawn = [(trial, settings_of(trial.params)) for trial in complete]
    names = list(dict.fromkeys(name for _, found in drawn for name in found))[:_MAX_AXES]
    if len(drawn) < 2 or not names:
        return None
    sign = 1.0 if minimize else -1.0
    drawn.sort(key=lambda pair: sign * (pair[0].value or 0.0))
    best = max(1, len(drawn) // 10)
    axes = [_axis(name, [found.get(name) for _, found in drawn]) for name in names]
    axes.append(_axis(f"validation {metric}", [trial.value for trial, _ in drawn]))
    drawing = Drawing(WIDTH, _AXIS_GAP * len(axes) + 14, f"{len(drawn)} trials as lines through {len(names)} settings")
    chosen = [*drawn[:best], *_thinned(drawn[best:], _MAX_LINES - best)]
    for place, (trial, found) in reversed(list(enumerate(chosen))):
        values = [*(found.get(name) for name in names), trial.value]
        places = [(axis(value), 22 + _AXIS_GAP * row) for row, (axis, value) in enumerate(zip(axes, values, strict=True))]
        role: Role = "winner" if place < best else "other"
        first = trial.number == winner
        opacity = 1.0 if first else 0.6 if place < best else 0.22
        drawing.add(Line([(x, y) for x, y in places if x is not None], role, 3.0 if first else 1.2, opacity=opacity))
    for row, axis in enumerate(axes):
        y = 22 + _AXIS_GAP * row
        drawing.add(Line([(_LEFT - 40, y), (_RIGHT, y)], "ink", 1.0))
        _label(drawing, Words(_LEFT - 40, y - 7, axis.name, bold=True))
        for index, (x, text) in enumerate(axis.marks):
            anchor: Anchor = "start" if index == 0 else "end" if index == len(axis.marks) - 1 else "middle"
            drawing.add(Line([(x, y - 3), (x, y + 3)], "ink"))
            _label(drawing, Words(x, y + 15, text, anchor, "soft", size=11))
    return drawing


def _label(drawing: Drawing, words: Words) -> None:
    """Words on a background, readable where lines cross them."""
    width = LETTER * 1.08 * words.size * len(words.text) + 4
    left = words.x - {"start": 2.0, "middle": width / 2, "end": width - 2}[words.anchor]
    drawing.add(Box(max(0.0, left), words.y - words.size + 1, width, words.size + 3, "paper", 0.82), words)


def settings_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Suggested parameters by setting: `use_l1` = false is `l1` off; values per layer are averaged."""
    found: dict[str, Any] = {}
    layers: dict[str, list[float]] = {}
    for name, value in params.items():
        base, _, last = name.rpartition("_")
        if name.startswith("use_"):
            if not value:
                found[name.removeprefix("use_")] = "off"
            else:
                found.setdefault(name.removeprefix("use_"), "off")
        elif last.isdigit() and base:
            layers.setdefault(base, []).append(float(value))
        else:
            found[name] = value
    return {**found, **{name: sum(values) / len(values) for name, values in layers.items()}}


def _axis(name: str, values: Sequence[Any]) -> Axis:
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    words = sorted({str(value) for value in values if isinstance(value, str | bool)})
    start, end = _LEFT - 40, _RIGHT
    if not numbers:
        step = (end - start) / max(1, len(words) - 1)
        at = {word: start + step * index for index, word in enumerate(words)} if len(words) > 1 else {words[0]: start}
        width = (end - start) / len(words)
        return Axis(name, at, None, [(x, shortened(word, width, 11)) for word, x in at.items()])
    off = dict.fromkeys(words, start)
    first = start + 60 if words else start
    low, high = min(numbers), max(numbers)
    if "validation" in name:
        low, high = robust_range(numbers, 0.9)
    scale = Scale(low, high, first, end, log=low > 0 and high / low > _LOG_FROM)
    ends = [(first, number(low)), (end, number(high))] if high > low else [((first + end) / 2, number(low))]
    return Axis(name, off, scale, [*((start, word) for word in words), *ends])


def effects(found: Sequence[Effect], metric: str) -> Drawing:
    """Mean values of trials by setting, in bins with standard errors: a small chart per setting."""
    columns, wide, high = 2, (WIDTH - 20) / 2, 150.0
    rows = -(-len(found) // columns)
    drawing = Drawing(WIDTH, rows * high + 4, f"Mean validation {metric} of trials by setting")
    low, top = robust_range([each.mean for effect in found for each in effect.bins], 0.9)
    for place, effect in enumerate(found):
        left, upper = (place % columns) * (wide + 20) + 44, (place // columns) * high + 26
        y = Scale.around((low, top), upper + 84, upper + 6, margin=0.1)
        drawing.add(Words(left - 42, upper - 10, shortened(effect.setting, wide), bold=True))
        left_axis(drawing, y, left, "", right=left + wide - 44, ticks=3)
        step = (wide - 44) / len(effect.bins)
        for index, each in enumerate(effect.bins):
            x = left + step * (index + 0.5)
            error = each.standard_error if math.isfinite(each.standard_error) else 0.0
            name = _name(each)
            tooltip = f"{effect.setting} {name}: {number(each.mean)} ± {number(error)} over {each.n} trials"
            drawing.add(
                Line([(x, y(each.mean - error)), (x, y(each.mean + error))], "winner", 1.5),
                Dot(x, y(each.mean), 3.5, "winner", tooltip=tooltip),
                Words(x, upper + 100, shortened(name, step, 10), "middle", "soft", size=10),
            )
    return drawing


def _name(found: ChoiceBin | RangeBin) -> str:
    match found:
        case ChoiceBin():
            return str(found.choice)
        case RangeBin():
            return _short((found.low + found.high) / 2)
        case _:
            assert_never(found)


def _short(value: float) -> str:
    """Two significant digits, or one and a power of ten."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e4):
        return number(float(f"{value:.0e}"))
    return number(float(f"{value:.1e}")).removeprefix("0") or "0"


def _thinned(items: Sequence[Any], most: int) -> list[Any]:
    """At most ``most`` of the items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]
