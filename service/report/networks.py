"""Sections on the trained networks: how they learnt, how far they overfit, what they predict on the test rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.report import charts_networks, charts_scores
from service.report.axes import number
from service.report.content import Block, Figure, Source, Table
from service.report.scene import Role


def training(source: Source) -> Iterator[Block]:
    """Learning curves, the generalization gap, and what regularization did to the weights."""
    yield from _curves(source)
    yield from _gap(source)
    weights = source.result.get("weights")
    if weights:
        rows = [
            (name, f"{number(said['norm']['mean'])} ± {number(said['norm']['std'])}", f"{said['sparsity']['mean']:.1%}")
            for name, said in weights.items()
        ]
        yield Table(("network", "norm of all weights", "share of weights below 0.001"), rows)
    yield from _pruning(source)


def _pruning(source: Source) -> Iterator[Block]:
    """How much of a network is superfluous: scores as its smallest weights are set to zero, of all layers together."""
    curves: Mapping[str, Any] = source.result.get("pruning") or {}
    if curves:
        shares = [point["asked"] for point in next(iter(curves.values()))]
        header = (f"validation {source.metric} with so many weights set to zero", *(f"{share:.0%}" for share in shares))
        yield Table(header, [(name, *(number(point["score"]) for point in points)) for name, points in curves.items()])


def _roles(source: Source) -> dict[str, tuple[str, Role]]:
    """Names of the two settings that are shown beside each other, and how."""
    names: dict[str, tuple[str, Role]] = {}
    for key, role in (("winner", "winner"), ("baseline", "baseline")):
        if key in source.result:
            said = "winner" if key == "winner" else source.result[key]["name"]
            names[source.result[key]["name"]] = (said, role)  # type: ignore[assignment]  # one of the two roles
    return names


def _curves(source: Source) -> Iterator[Block]:
    shown = _roles(source)
    curves: Mapping[str, Any] = source.result.get("curves") or {}
    found = [(*shown[name], curve) for name, curve in curves.items() if name in shown and curve.get("epochs")]
    if not found:
        return
    mean = f"mean over {max(max(curve.get('seeds', [1])) for _, _, curve in found)} seeds"
    yield Figure(
        charts_networks.curves(found, ("train_loss", "loss"), "loss"),
        f"Loss by epoch, {mean}: on training rows while training, with penalties and dropout (dashed), and on "
        "validation rows (solid). Solid lines that turn upwards while dashed ones fall are overfitting. Dots on the axis: "
        "the epoch that was kept. Values off the chart lie on its edge.",
    )
    if source.study.metric != "log_loss":
        yield Figure(
            charts_networks.curves(found, (source.study.metric,), f"validation {source.metric}"),
            f"Validation {source.metric} by epoch, {mean}: what early stopping and the search looked at.",
        )


def _gap(source: Source) -> Iterator[Block]:
    shown = _roles(source)
    rows = []
    for key in ("winner", "baseline"):
        said = source.result.get(key, {})
        if all(said.get(part) for part in ("train", "valid", "test")):
            parts = [
                (part, said[name]["mean"]) for part, name in (("train", "train"), ("valid.", "valid"), ("test", "test"))
            ]
            rows.append((*shown[said["name"]], parts))
    if rows:
        table = Table(
            ("setting", *(f"{part} {source.metric}" for part in ("training", "validation", "test"))),
            [(name, *(number(value) for _, value in parts)) for name, _, parts in rows],
        )
        yield Figure(
            charts_scores.gap(rows, source.metric),
            f"The generalization gap: {source.metric} on the rows that were trained on (ring), on validation and on "
            "test rows. The "
            "longer the line, the more a network has learnt its training rows by heart.",
            table,
        )


def predictions(source: Source) -> Iterator[Block]:
    """Test predictions of the network that can be downloaded."""
    found = (source.result.get("pictures") or {}).get("test") or {}
    which = "the network that can be downloaded (the winner's best seed on validation rows)"
    if "pairs" in found:
        yield Figure(
            charts_networks.pairs(found["pairs"]),
            f"Predicted by true values of {len(found['pairs'])} test rows, by {which}. Dots above the diagonal are "
            "predicted too "
            "high; a cloud flatter than the diagonal draws everything to the middle.",
        )
    if "confusion" in found:
        labels, counts = found["confusion"]["labels"], found["confusion"]["counts"]
        table = Table(
            ("true \\ predicted", *labels), [(name, *map(str, row)) for name, row in zip(labels, counts, strict=True)]
        )
        yield Figure(
            charts_networks.confusion(labels, counts),
            f"Test rows by true class (down) and predicted class (across), by {which}. Each row is shaded by its "
            "shares: blue on the "
            "diagonal is right, orange beside it is what a class was mistaken for.",
            table,
        )
    if "calibration" in found:
        bins = [each for each in found["calibration"]["bins"] if each["count"]]
        table = Table(
            ("rows", "mean confidence", "share that is right"),
            [(str(each["count"]), f"{each['confidence']:.3f}", f"{each['accuracy']:.3f}") for each in bins],
        )
        yield Figure(
            charts_networks.reliability(found["calibration"]["bins"]),
            "How often a prediction is right, by how sure the network was (grey bars: how many test rows). Below the "
            "diagonal it "
            f"promises too much. Expected calibration error: {found['calibration']['expected_error']:.3f}.",
            table,
        )
