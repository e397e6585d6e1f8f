"""What a classifier's predictions on the test part look like: confusion table, ROC and precision-recall curves.

The seeds of a setting give one curve each; shown is their mean at fixed places, with the lowest and highest seed. Plain
values, for JSON. Shapes: `s` seeds, `r` rows, `c` classes.
Reference: Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006), vertical averaging.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve
from torch import Tensor

from workers.scoring.metrics import average_precision, class_scores, confusion, roc_auc

PLACES = np.linspace(0.0, 1.0, 101)
MOST_CLASSES = 20
"""With more classes there are no curves: nobody looks at so many."""

Floats = NDArray[np.float64]


def describe(out: Tensor, target: Tensor, labels: Sequence[str], *, positive: int = 1) -> dict[str, Any]:
    """Confusion table and curves of one setting.

    Args:
        out: (s, r, c) logits of every seed's network.
        target: (r,) class indices.
        labels: The classes' names.
        positive: Index of the class that curves are about, where there are two.

    Returns:
        ``confusion`` {labels, counts}: counts [true][predicted], mean over seeds. ``roc`` and ``pr``: one curve per class
        against the rest, of two classes the positive one's only: {label, x, y, low, high, area}, where x is the
        false-positive rate or the recall, y the true-positive rate or the precision, and area the mean of the seeds'
        ROC AUC or average precision. Classes without a row, or with all of them, have no curve.
    """
    seeds, rows, classes = out.shape
    table = confusion(out.argmax(2), target.expand(seeds, rows), torch.ones(seeds, rows), classes).mean(0)
    found: dict[str, Any] = {"confusion": {"labels": list(labels), "counts": table.tolist()}, "roc": [], "pr": []}
    shown = [positive] if classes == 2 else range(classes if classes <= MOST_CLASSES else 0)
    scores = class_scores(out)
    for label in shown:
        hits = (target == label).float().expand(seeds, rows)
        if not 0 < float(hits[0].sum()) < rows:
            continue
        given = (scores[:, :, label], hits, torch.ones(seeds, rows))
        found["roc"].append({"label": labels[label], **_curve(_roc, *given[:2]), "area": float(roc_auc(*given).mean())})
        area = float(average_precision(*given).mean())
        found["pr"].append({"label": labels[label], **_curve(_precision_recall, *given[:2]), "area": area})
    return found


def _curve(one: Callable[[Floats, Floats], Floats], scores: Tensor, hits: Tensor) -> dict[str, list[float]]:
    """Mean, lowest and highest of the seeds' curves at `PLACES`."""
    each = np.stack([one(h, s) for h, s in zip(hits.double().numpy(), scores.double().numpy(), strict=True)])
    rounded = (np.round(values, 5).tolist() for values in (PLACES, each.mean(0), each.min(0), each.max(0)))
    return dict(zip(("x", "y", "low", "high"), rounded, strict=True))


def _roc(hits: Floats, scores: Floats) -> Floats:
    """True-positive rates at the false-positive rates of `PLACES`: straight lines between thresholds, steps at their top."""
    false, true, _ = roc_curve(hits, scores, drop_intermediate=False)
    last = np.append(np.diff(false) > 0, True)
    at_zero = np.interp(PLACES, false[last], true[last])
    return np.asarray(at_zero, dtype=np.float64)


def _precision_recall(hits: Floats, scores: Floats) -> Floats:
    """Precisions at the recalls of `PLACES`: of the highest threshold that reaches one, as average precision has it."""
    precision, recall, _ = precision_recall_curve(hits, scores)
    # In rising order of recall, without the point (0, 1), which no threshold has.
    rising, precisions = recall[-2::-1], precision[-2::-1]
    reached = np.searchsorted(rising, PLACES - 1e-12)
    return np.asarray(precisions[np.minimum(reached, len(rising) - 1)], dtype=np.float64)
