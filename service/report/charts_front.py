"""Charts of a Pareto front: trials by two of their objectives."""

from __future__ import annotations

from collections.abc import Sequence

from service.report.axes import Scale, bottom_axis, left_axis, number, robust_range
from service.report.charts_scores import WIDTH, legend
from service.report.scene import Dot, Drawing, Line, Point

_LEFT, _TOP, _BOTTOM, _RIGHT = 60.0, 44.0, 276.0, WIDTH - 12
_HEIGHT = 320.0
Placed = tuple[int, float, float]
"""The number of a trial and its values of both objectives."""


def front(
    trials: Sequence[Placed], first: Sequence[Placed], names: tuple[str, str], *, stairs: bool, winner: int | None
) -> Drawing:
    """Trials as dots; those of the front are coloured, the winner's is large.

    Args:
        trials: Complete trials.
        first: Trials of the front, the best in the first objective first.
        names: Display names of the two objectives.
        stairs: Whether to draw the border of the dominated region, which needs a front in these two objectives alone.
        winner: Number of the winner's trial.
    """
    drawing = Drawing(
        WIDTH, _HEIGHT, f"{names[1]} by {names[0]} of {len(trials)} trials, {len(first)} of them on the Pareto front"
    )
    x, y = (
        Scale.around([*robust_range([each[axis] for each in trials], 0.9), *(each[axis] for each in first)], *ends)
        for axis, ends in ((1, (_LEFT + 6, _RIGHT)), (2, (_BOTTOM, _TOP)))
    )
    left_axis(drawing, y, _LEFT, names[1], right=_RIGHT)
    bottom_axis(drawing, x, _BOTTOM, names[0], top=_TOP)
    chosen = {each[0] for each in first}
    drawing.add(*(Dot(x(a), y(b), 2.5, "other", opacity=0.6) for n, a, b in trials if n not in chosen))
    if stairs:
        drawing.add(Line([(x(a), y(b)) for a, b in _corners(first)], "good", 1.5))
    for n, a, b in first:
        tooltip = f"trial {n}: {names[0]} {number(a)}, {names[1]} {number(b)}"
        drawing.add(Dot(x(a), y(b), 6.0 if n == winner else 4.0, "winner" if n == winner else "good", tooltip=tooltip))
    legend(drawing, [("Pareto front", "good", False), ("winner's trial", "winner", False)], _RIGHT - 240)
    return drawing


def _corners(first: Sequence[Placed]) -> list[Point]:
    """The staircase through a front: between neighbours, the point that has the worse value of either objective."""
    corners: list[Point] = []
    for _, a, b in first:
        if corners:
            corners.append((a, corners[-1][1]))
        corners.append((a, b))
    return corners
