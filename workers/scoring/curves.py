"""Curves of a classifier's predictions on the test part: confusion table, ROC and precision-recall curves.

Each seed of a setting gives one curve; the result is their mean on a fixed grid, with the lowest and the highest seed.

Shapes: `s` seeds, `r` rows, `c` classes.
Reference: Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006), vertical averaging.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve
from torch import Tensor

from service.result import Confusion, Discrimination, OneVersusRest
from workers.scoring.metrics import average_precision, class_scores, confusion, roc_auc

PLACES = np.linspace(0.0, 1.0, 101)
MOST_CLASSES = 20
"""With more classes, curves are omitted."""

Floats = NDArray[np.float64]


def describe(out: Tensor, target: Tensor, labels: Sequence[str], *, positive: int = 1) -> Discrimination:
    """Confusion table and curves of one setting.

    Args:
        out: (s, r, c) logits of every seed's network.
        target: (r,) class indices.
        labels: The classes' names.
        positive: Index of the positive class, where there are two.

    Returns:
        One curve of each kind per class against the rest; with two classes, of the positive one only. Classes without
        rows, or with all of them, have no curve.
    """
    seeds, rows, classes = out.shape
    table = confusion(out.argmax(2), target.expand(seeds, rows), torch.ones(seeds, rows), classes).mean(0)
    roc: list[OneVersusRest] = []
    pr: list[OneVersusRest] = []
    shown = [positive] if classes == 2 else range(classes if classes <= MOST_CLASSES else 0)
    scores = class_scores(out)
    for label in shown:
        hits = (target == label).float().expand(seeds, rows)
        if not 0 < float(hits[0].sum()) < rows:
            continue
        given = (scores[:, :, label], hits, torch.ones(seeds, rows))
        roc.append(_curve(labels[label], _roc, *given[:2], area=float(roc_auc(*given).mean())))
        pr.append(_curve(labels[label], _precision_recall, *given[:2], area=float(average_precision(*given).mean())))
    counts = tuple(tuple(row) for row in table.tolist())
    return Discrimination(confusion=Confusion(labels=tuple(labels), counts=counts), roc=tuple(roc), pr=tuple(pr))


def _curve(
    label: str, one: Callable[[Floats, Floats], Floats], scores: Tensor, hits: Tensor, *, area: float
) -> OneVersusRest:
    """Mean, minimum and maximum over seeds of the curves at `PLACES`."""
    each = np.stack([one(h, s) for h, s in zip(hits.double().numpy(), scores.double().numpy(), strict=True)])
    x, y, low, high = (tuple(np.round(values, 5).tolist()) for values in (PLACES, each.mean(0), each.min(0), each.max(0)))
    return OneVersusRest(label=label, x=x, y=y, low=low, high=high, area=area)


def _roc(hits: Floats, scores: Floats) -> Floats:
    """True-positive rates at the false-positive rates of `PLACES`: linear between thresholds, the upper end of steps."""
    false, true, _ = roc_curve(hits, scores, drop_intermediate=False)
    last = np.append(np.diff(false) > 0, True)
    at_zero = np.interp(PLACES, false[last], true[last])
    return np.asarray(at_zero, dtype=np.float64)


def _precision_recall(hits: Floats, scores: Floats) -> Floats:
    """Precisions at the recalls of `PLACES`: at the highest threshold that reaches the recall, as in average precision."""
    precision, recall, _ = precision_recall_curve(hits, scores)
    # In ascending order of recall, without the point (0, 1), which belongs to no threshold.
    rising, precisions = recall[-2::-1], precision[-2::-1]
    reached = np.searchsorted(rising, PLACES - 1e-12)
    return np.asarray(precisions[np.minimum(reached, len(rising) - 1)], dtype=np.float64)
