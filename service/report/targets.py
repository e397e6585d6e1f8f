"""The scores of each of several targets, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.report.axes import number
from service.report.content import Block, Table, Text, between
from service.result import TargetScore

_MOST = 60
_FURTHER = 3


def per_target(found: Sequence[TargetScore], metric: str) -> Iterator[Block]:
    """A sentence on what the study's metric is a mean of, and a row for each target."""
    labels = found[0].share is not None
    unit = "label by itself" if labels else "target by itself, in its own unit"
    more = f" The first {_MOST} of {len(found)} are shown; the result has all." if len(found) > _MOST else ""
    mean = "the labels" if labels else "the targets, in standard deviations of each"
    yield Text(f"The {metric} above is a mean over {mean}. On the test rows, each {unit}:{more}")
    further = list(found[0].values)[:_FURTHER]
    head = ("target", *(["rows that have it"] if labels else []), f"test {metric}", "95 % interval", "unregularized")
    yield Table((*head, *(name.replace("_", " ") for name in further)), [_row(each, further) for each in found[:_MOST]])


def _row(each: TargetScore, further: Sequence[str]) -> tuple[str, ...]:
    share = [] if each.share is None else [f"{each.share:.1%}"]
    baseline = "–" if each.baseline is None else number(each.baseline.mean)
    others = (number(each.values[name]) for name in further)
    return (each.name, *share, number(each.winner.mean), between(each.winner), baseline, *others)
