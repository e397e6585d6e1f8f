"""Sections on the trained networks: how they learned, how far they overfit, what they predict on the test rows."""

from __future__ import annotations

from collections.abc import Iterator

from service.report import charts_networks, charts_scores
from service.report.axes import number
from service.report.content import Block, Figure, Source, Table, over_seeds
from service.report.scene import Role
from service.result import Calibration, Confusion


def training(source: Source) -> Iterator[Block]:
    """Learning curves, the generalization gap, and the effect of regularization on the weights."""
    yield from _curves(source)
    yield from _gap(source)
    weights = source.result.weights
    if weights:
        rows = [(name, over_seeds(each.norm), f"{each.sparsity.mean:.1%}") for name, each in weights.items()]
        yield Table(("network", "norm of all weights", "share of weights below 0.001"), rows)
    yield from _sparsification(source)


def _sparsification(source: Source) -> Iterator[Block]:
    """Scores with the smallest weights of all layers set to zero: how much of a network is superfluous."""
    curves = source.result.sparsification
    if curves:
        shares = [point.asked for point in next(iter(curves.values()))]
        header = (f"validation {source.metric} by share of weights set to zero", *(f"{share:.0%}" for share in shares))
        yield Table(header, [(name, *(number(point.score) for point in points)) for name, points in curves.items()])


def _roles(source: Source) -> dict[str, tuple[str, Role]]:
    """Display names and roles of the two settings that are compared."""
    winner, baseline = source.result.winner.name, source.result.baseline.name
    return {winner: ("winner", "winner"), baseline: (baseline, "baseline")}


def _curves(source: Source) -> Iterator[Block]:
    shown = _roles(source)
    curves = source.result.curves or {}
    found = [(*shown[name], curve) for name, curve in curves.items() if name in shown and curve.epochs]
    if not found:
        return
    mean = f"mean over {max(max(curve.seeds) for _, _, curve in found)} seeds"
    yield Figure(
        charts_networks.curves(found, ("train_loss", "loss"), "loss"),
        f"Loss by epoch, {mean}: on training rows during training, with penalties and dropout (dashed), and on "
        "validation rows (solid). A solid line that rises while the dashed one falls shows overfitting. Dots on the axis "
        "mark the epoch that was kept. Values outside the chart are drawn on its edge.",
    )
    if source.study.metric != "log_loss":
        yield Figure(
            charts_networks.curves(found, (source.study.metric,), f"validation {source.metric}"),
            f"Validation {source.metric} by epoch, {mean}: the values by which the search judged trials.",
        )


def _gap(source: Source) -> Iterator[Block]:
    shown = _roles(source)
    rows = []
    for setting in (source.result.winner, source.result.baseline):
        if setting.train and setting.valid and setting.test:
            parts = [("train", setting.train.mean), ("valid.", setting.valid.mean), ("test", setting.test.mean)]
            rows.append((*shown[setting.name], parts))
    if rows:
        table = Table(
            ("setting", *(f"{part} {source.metric}" for part in ("training", "validation", "test"))),
            [(name, *(number(value) for _, value in parts)) for name, _, parts in rows],
        )
        yield Figure(
            charts_scores.gap(rows, source.metric),
            f"The generalization gap: {source.metric} on training rows (ring), on validation rows and on test rows. "
            "The longer the line, the more a network has memorized its training rows.",
            table,
        )


_WHICH = "the network that can be downloaded (the winner's best seed on validation rows)"


def predictions(source: Source) -> Iterator[Block]:
    """Test predictions of the network that can be downloaded."""
    if source.result.pictures is None:
        return
    found = source.result.pictures.test
    if found.pairs is not None:
        several = source.result.targets is not None
        what = "values of all targets in test rows, in standard deviations of each" if several else "test rows"
        yield Figure(
            charts_networks.pairs(found.pairs),
            f"Predicted against true values of {len(found.pairs)} {what}, for {_WHICH}. Dots above the diagonal are "
            "predicted too high; a cloud flatter than the diagonal means that predictions are drawn towards the mean.",
        )
    if found.confusion is not None:
        yield _confusion(found.confusion)
    if found.calibration is not None:
        yield _calibration(found.calibration)


def _confusion(found: Confusion) -> Figure:
    rows = [(name, *map(str, row)) for name, row in zip(found.labels, found.counts, strict=True)]
    return Figure(
        charts_networks.confusion(found.labels, found.counts),
        f"Test rows by true class (down) and predicted class (across), for {_WHICH}. Each row is shaded by its "
        "shares: correct predictions are blue, on the diagonal; orange shows what a class was mistaken for.",
        Table(("true \\ predicted", *found.labels), rows),
    )


def _calibration(found: Calibration) -> Figure:
    bins = [
        (str(each.count), f"{each.confidence:.3f}", f"{each.accuracy:.3f}")
        for each in found.bins
        if each.confidence is not None and each.accuracy is not None
    ]
    return Figure(
        charts_networks.reliability(found.bins),
        "Share of correct predictions by the network's confidence (grey bars: number of test rows). Below the diagonal "
        f"the network is overconfident. Expected calibration error: {found.expected_error:.3f}.",
        Table(("rows", "mean confidence", "share correct"), bins),
    )
