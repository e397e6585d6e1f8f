"""What is decided on validation rows about outputs of classes or labels: their temperature and thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from service.result import Temperature, Thresholds
from workers.answer.networks import Gauge, Measured, ScoredRows, validation_rows
from workers.answer.temperature import calibrated
from workers.answer.thresholds import TUNED, Judged, tuned, tuned_labels
from workers.plain.members import MEANS


@dataclass(frozen=True)
class Decisions:
    """Each that of single networks, and that of their average; ``thresholds`` of metrics that have some."""

    calibrations: tuple[Temperature, Temperature]
    thresholds: tuple[Thresholds, Thresholds] | None


def decided(gauge: Gauge, winner: Measured, rows: ScoredRows) -> Decisions:
    """Those of the winner's networks, from validation rows of all folds; ``rows`` are the test rows."""
    mean, positive = MEANS[gauge.task], gauge.data.device.positive
    labels = [validation_rows(gauge.data, fold).y.cpu() for fold in range(len(winner.valid_outs))]
    alone = [Judged(out, own) for out, own in zip(winner.valid_outs, labels, strict=True)]
    together, test = [each.averaged(mean) for each in alone], Judged(winner.test_out, rows.y.cpu())
    averaged = test.averaged(mean)
    calibrations = (
        calibrated([each.flat() for each in alone], test.flat()),
        calibrated([each.flat() for each in together], averaged.flat()),
    )
    if gauge.metric not in TUNED:
        return Decisions(calibrations, None)
    find = partial(tuned, gauge.metric, positive) if gauge.task == "classification" else tuned_labels
    return Decisions(calibrations, (find(alone, test), find(together, averaged)))
