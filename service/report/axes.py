"""Scales, ticks and axes of a chart: they map numbers to positions on the sheet. Independent of studies.

Reference for tick steps: Heckbert, "Nice Numbers for Graph Labels", Graphics Gems (1990).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.report.scene import Drawing, Line, Words

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """Maps ``low`` … ``high`` to ``start`` … ``end`` (points), logarithmically if ``log``; clips values to the ends."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, *, log: bool = False, margin: float = 0.06) -> Scale:
        """A scale over the finite values with a margin on both sides, as a share of their range."""
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if log and low > 0:
            padding = (high / low) ** margin if high > low else 2.0
            return cls(low / padding, high * padding, start, end, log=True)
        padding = (high - low) * margin or abs(high) * 0.1 or 1.0
        return cls(low - padding, high + padding, start, end)

    def __call__(self, value: float) -> float:
        """The position of a value in points."""
        low, high, at = (math.log(max(each, 1e-300)) if self.log else each for each in (self.low, self.high, value))
        share = 0.5 if high == low else (at - low) / (high - low)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers on the scale, at most about ``most`` of them."""
        if self.log and self.high / self.low >= 20:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, -(-(last - first + 1) // most))
            return [10.0**power for power in range(first, last + 1, every)]
        step = _nice((self.high - self.low) / max(1, most - 1))
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [round((first + index) * step, 12) for index in range(max(0, count))]


def _nice(rough: float) -> float:
    if rough <= 0 or not math.isfinite(rough):
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * 0.999)


def number(value: float | None) -> str:
    """A number for readers, with four significant digits; "–" where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def bottom_axis(drawing: Drawing, scale: Scale, y: float, label: str, *, top: float, ticks: int = 5) -> None:
    """Ticks and a label below a chart, and grid lines up to ``top``."""
    for tick in scale.ticks(ticks):
        x = scale(tick)
        drawing.add(Line([(x, top), (x, y)], "grid"), Words(x, y + 15, number(tick), "middle", "soft"))
    drawing.add(Words((scale.start + scale.end) / 2, y + 31, label, "middle", "soft"))


def left_axis(drawing: Drawing, scale: Scale, x: float, label: str, *, right: float, ticks: int = 5) -> None:
    """Ticks on the left of a chart, grid lines to ``right``, and a label above it."""
    for tick in scale.ticks(ticks):
        y = scale(tick)
        drawing.add(Line([(x, y), (right, y)], "grid"), Words(x - 6, y + 4, number(tick), "end", "soft"))
    if label:
        drawing.add(Words(2, min(scale.start, scale.end) - 10, label, "start", "soft"))


def robust_range(values: Sequence[float], keep: float = 0.95) -> tuple[float, float]:
    """The range without far outliers at one or both ends: at most 1 - ``keep`` of the values at an end are outside it."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if len(ordered) < 8:
        return (ordered[0], ordered[-1]) if ordered else (0.0, 1.0)
    quarter = len(ordered) // 4
    spread = 3.0 * (ordered[-1 - quarter] - ordered[quarter]) or abs(ordered[-1]) or 1.0
    cut = int(len(ordered) * (1.0 - keep))
    low = max(ordered[0], min(ordered[cut], ordered[quarter] - spread))
    high = min(ordered[-1], max(ordered[-1 - cut], ordered[-1 - quarter] + spread))
    return low, high
