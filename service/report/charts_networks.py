"""Charts of trained networks: learning curves, calibration, confusion, predicted against true values."""

from __future__ import annotations

from collections.abc import Sequence

from service.report.axes import Scale, bottom_axis, left_axis, number, robust_range
from service.report.charts_scores import WIDTH, legend
from service.report.scene import Box, Dot, Drawing, Line, Role, Words, shortened
from service.result import CalibrationBin, Curves

_LEFT, _TOP, _BOTTOM, _RIGHT = 52.0, 44.0, 276.0, WIDTH - 12
_HEIGHT = 320.0
_MAX_NUMBERED = 12


def curves(found: Sequence[tuple[str, Role, Curves]], names: Sequence[str], label: str) -> Drawing:
    """Learning curves by epoch. ``names`` are one curve, or two, of which the first (training) is dashed."""
    drawing = Drawing(WIDTH, _HEIGHT, f"{label} by epoch, of {' and '.join(name for name, _, _ in found)}")
    values = [value for _, _, curve in found for name in names for value in curve.course(name)]
    low, high = robust_range(values, 0.9)
    log = low > 0 and high / low > 30
    y = Scale.around((low, high), _BOTTOM, _TOP, log=log)
    x = Scale(0.0, max(max(curve.epochs) for _, _, curve in found), _LEFT, _RIGHT)
    left_axis(drawing, y, _LEFT, label, right=_RIGHT)
    bottom_axis(drawing, x, _BOTTOM, "epoch", top=_TOP)
    legend(drawing, [(name, role, False) for name, role, _ in found], _LEFT + 60)
    for name, role, curve in found:
        for index, course in enumerate(names):
            points = [(x(epoch), y(value)) for epoch, value in zip(curve.epochs, curve.course(course), strict=True)]
            drawing.add(Line(points, role, 2.0, dash=index < len(names) - 1))
        at = x(curve.best)
        drawing.add(
            Line([(at, _TOP), (at, _BOTTOM)], role, 1.0, opacity=0.5), Dot(at, _BOTTOM, 4, role, tooltip=f"{name}: kept")
        )
    return drawing


def reliability(bins: Sequence[CalibrationBin]) -> Drawing:
    """Reliability diagram: share of correct predictions by confidence, which are equal on the diagonal."""
    drawing = Drawing(WIDTH, _HEIGHT, "Accuracy by confidence, in bins")
    x, y = Scale(0.0, 1.0, _LEFT, _RIGHT), Scale(0.0, 1.0, _BOTTOM, _TOP)
    left_axis(drawing, y, _LEFT, "share correct", right=_RIGHT)
    bottom_axis(drawing, x, _BOTTOM, "confidence of the prediction", top=_TOP)
    most = max(each.count for each in bins)
    for place, each in enumerate(bins):
        if each.count:
            height = 46.0 * each.count / most
            left, right = x(place / len(bins)), x((place + 1) / len(bins))
            drawing.add(Box(left + 1, _BOTTOM - height, right - left - 2, height, "other", 0.3, f"{each.count} rows"))
    drawing.add(Line([(x(0), y(0)), (x(1), y(1))], "soft", 1.5, dash=True))
    filled = [
        (each.count, each.confidence, each.accuracy)
        for each in bins
        if each.confidence is not None and each.accuracy is not None
    ]
    drawing.add(Line([(x(confidence), y(accuracy)) for _, confidence, accuracy in filled], "winner", 2))
    for count, confidence, accuracy in filled:
        radius = 3.0 + 4.0 * (count / most) ** 0.5
        tooltip = f"{count} rows: confidence {confidence:.3f}, share correct {accuracy:.3f}"
        drawing.add(Dot(x(confidence), y(accuracy), radius, "winner", tooltip=tooltip))
    return drawing


def confusion(labels: Sequence[str], counts: Sequence[Sequence[float]]) -> Drawing:
    """Confusion table: rows by true and predicted class, shaded by their share of the true class."""
    size = len(labels)
    left, top = 110.0, 52.0
    cell = min(84.0, (WIDTH - left - 10) / size)
    drawing = Drawing(WIDTH, top + cell * size + 12, "Rows by true class (down) and predicted class (across)")
    drawing.add(
        Words(left + cell * size / 2, 16, "predicted", "middle", "soft"), Words(4, top - 12, "true", "start", "soft")
    )
    for row, name in enumerate(labels):
        y = top + cell * row
        drawing.add(Words(left - 8, y + cell / 2 + 4, shortened(name, left - 14), "end"))
        if cell >= 22:
            drawing.add(Words(left + cell * (row + 0.5), top - 12, shortened(name, cell - 2), "middle"))
        total = max(1, sum(counts[row]))
        for column, count in enumerate(counts[row]):
            share = count / total
            role: Role = "winner" if row == column else "baseline"
            x = left + cell * column
            tooltip = f"{name} predicted as {labels[column]}: {count} of {total}"
            drawing.add(
                Box(x, y, cell - 1.5, cell - 1.5, "grid", 0.5), Box(x, y, cell - 1.5, cell - 1.5, role, share, tooltip)
            )
            if size <= _MAX_NUMBERED and count:
                ink: Role = "paper" if share > 0.5 else "ink"
                drawing.add(Words(x + cell / 2 - 1, y + cell / 2 + 4, str(count), "middle", ink))
    return drawing


def pairs(found: Sequence[Sequence[float]]) -> Drawing:
    """Predicted against true values, which are equal on the diagonal."""
    drawing = Drawing(WIDTH, _HEIGHT, f"Predicted against true value of {len(found)} test rows")
    values = [value for pair in found for value in pair]
    x, y = Scale.around(values, _LEFT, _RIGHT), Scale.around(values, _BOTTOM, _TOP)
    left_axis(drawing, y, _LEFT, "predicted", right=_RIGHT)
    bottom_axis(drawing, x, _BOTTOM, "true", top=_TOP)
    drawing.add(Line([(x(x.low), y(y.low)), (x(x.high), y(y.high))], "soft", 1.5, dash=True))
    for true, predicted in found:
        tooltip = f"true {number(true)}, predicted {number(predicted)}"
        drawing.add(Dot(x(true), y(predicted), 3, "winner", opacity=0.55, tooltip=tooltip))
    return drawing
