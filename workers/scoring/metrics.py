"""Validation metrics of all lanes at once, on the device.

Shapes: `k` lanes, `m` rows, `c` classes, `t` targets; rows are weighted by their mask. Equal to scikit-learn's metrics of
the same names, with the mask as `sample_weight` (tests/unit/test_metrics.py). `service.spec.metrics` defines what a metric
means for two classes, for more, and for several targets; a metric that is undefined, such as the ROC AUC of rows of a single
class, is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from service.spec import CLASSIFICATION_METRICS, MULTILABEL_METRICS, PINBALL, RANKING_METRICS, REGRESSION_METRICS
from workers.plain.update import pinball

NAMES = {
    "classification": ("loss", *(name for name in CLASSIFICATION_METRICS if name not in RANKING_METRICS)),
    "multilabel": ("loss", *(name for name in MULTILABEL_METRICS if name not in RANKING_METRICS)),
    "regression": ("loss", *(name for name in REGRESSION_METRICS if name != PINBALL)),
}
"""The cheap metrics of a task, which are always computed."""


def names(task: str, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns of `evaluate`: the cheap metrics, and of the others those that are among ``wanted``."""
    return (*NAMES[task], *(name for name in (*RANKING_METRICS, PINBALL) if name in wanted))


def evaluate(
    task: str,
    out: Tensor,
    target: Tensor,
    mask: Tensor,
    scale: Tensor,
    *,
    wanted: Sequence[str] = (),
    positive: int = 1,
    quantile: float | None = None,
) -> Tensor:
    """All metrics of a task.

    Args:
        task: `classification`, `multilabel` or `regression`.
        out: (k, m, outputs) logits, or standardized predictions.
        target: (k, m) class indices, or standardized targets; (k, m, t) labels, or several standardized targets.
        mask: (k, m) weight of each row: 0 for padding, a count in a bootstrap.
        scale: (k,) standard deviation of the regression target; 1 for several, whose metrics are means over the targets.
        wanted: Metrics that are needed; of the expensive ones only these are computed.
        positive: Index of the positive class, where there are two.
        quantile: Level of the quantile that a regression predicts, whose pinball loss is then the loss; None for the mean.

    Returns:
        (k, len(names(task, wanted))), a column per name, in order.
    """
    if task == "regression":
        return _regression(out.reshape(target.shape), target, mask, scale, wanted, quantile)
    several = task == "multilabel"
    columns = _multilabel(out, target, mask) if several else _classification(out, target, mask, positive)
    areas = names(task, wanted)[len(columns) :]
    ranking = _label_ranking if several else partial(_ranking, positive=positive)
    return torch.stack([*columns, *(ranking(name, out, target, mask) for name in areas)], dim=1)


def _regression(
    out: Tensor, target: Tensor, mask: Tensor, scale: Tensor, wanted: Sequence[str], quantile: float | None
) -> Tensor:
    """Of targets (k, m), or (k, m, t): then the means over the targets of each metric."""

    def over_rows(values: Tensor) -> Tensor:
        return (values * mask.view(*mask.shape, *[1] * (values.ndim - 2))).sum(1) / rows

    def over_targets(values: Tensor) -> Tensor:
        return values.mean(1) if values.ndim == 2 else values

    rows = mask.sum(1).view(-1, *[1] * (target.ndim - 2))
    error = out - target
    mse = over_rows(error.square())
    variance = over_rows((target - over_rows(target)[:, None]).square())
    cheap = [
        over_targets(mse.sqrt()) * scale,
        over_targets(over_rows(error.abs())) * scale,
        over_targets(1.0 - mse / variance),
    ]
    if quantile is None:
        return torch.stack([over_targets(mse), *cheap], dim=1)
    loss = over_targets(over_rows(pinball(error, quantile)))
    return torch.stack([loss, *cheap, *([loss * scale] if PINBALL in wanted else [])], dim=1)


def _classification(out: Tensor, target: Tensor, mask: Tensor, positive: int) -> list[Tensor]:
    """The cheap metrics, (k,) each: the loss, and those that follow from the confusion table."""
    loss = (F.cross_entropy(out.transpose(1, 2), target, reduction="none") * mask).sum(1) / mask.sum(1)
    decided = of_confusion(confusion(out.argmax(2), target, mask, out.shape[2]), positive)
    return [loss, *(loss if name == "log_loss" else decided[name] for name in NAMES["classification"][1:])]


def _multilabel(out: Tensor, target: Tensor, mask: Tensor) -> list[Tensor]:
    """The cheap metrics, (k,) each, of labels (k, m, t): the loss, and those that follow from decisions."""
    rows = mask.sum(1)
    loss = (F.softplus(torch.where(target > 0, -out, out)).mean(2) * mask).sum(1) / rows
    each = mask[:, :, None]
    actual, predicted = target > 0, out > 0
    hits, chosen, present = ((found * each).sum(1) for found in (actual & predicted, predicted, actual))
    right = actual == predicted
    decided = {
        "log_loss": loss,
        "accuracy": (right.all(2) * mask).sum(1) / rows,
        "hamming_accuracy": (right.to(mask.dtype).mean(2) * mask).sum(1) / rows,
        "precision": _share(hits, chosen).mean(1),
        "recall": _share(hits, present).mean(1),
        "f1_macro": _share(2.0 * hits, chosen + present).mean(1),
        "f1_micro": _share(2.0 * hits.sum(1), (chosen + present).sum(1)),
    }
    return [loss, *(decided[name] for name in NAMES["multilabel"][1:])]


def of_confusion(table: Tensor, positive: int) -> dict[str, Tensor]:
    """By name, (k,) each, the metrics that follow from confusion tables (k, c, c)."""
    rows = table.sum((1, 2))
    hits = table.diagonal(dim1=1, dim2=2)
    actual, predicted = table.sum(2), table.sum(1)
    others = rows[:, None] - actual
    recall = _share(hits, actual)
    each = {
        "precision": _share(hits, predicted),
        "recall": recall,
        "specificity": _share(others - predicted + hits, others),
        "f1": _share(2.0 * hits, actual + predicted),
    }
    # scikit-learn averages over the classes that occur among targets or predictions.
    seen = (actual + predicted) > 0
    macro = {name: (values * seen).sum(1) / seen.sum(1) for name, values in each.items()}
    chosen = {name: values[:, positive] for name, values in each.items()} if table.shape[1] == 2 else macro
    accuracy = hits.sum(1) / rows
    balanced = recall.sum(1) / (actual > 0).sum(1)
    return {"accuracy": accuracy, "balanced_accuracy": balanced, **chosen, "f1_macro": macro["f1"], "f1_micro": accuracy}


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Part / whole, or 0 where ``whole`` is 0."""
    return part / whole.clamp(min=torch.finfo(whole.dtype).tiny)


def confusion(predicted: Tensor, target: Tensor, mask: Tensor, classes: int) -> Tensor:
    """(k, c, c) counts; rows are true classes, columns predicted ones."""
    k = predicted.shape[0]
    cells = target * classes + predicted
    table = torch.zeros(k, classes * classes, device=predicted.device)
    return table.scatter_add_(1, cells, mask).view(k, classes, classes)


def _label_ranking(name: str, out: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """(k,) the mean of an area under a curve over the labels where it is defined."""
    each = [AREAS[name](out[:, :, label], target[:, :, label].to(mask.dtype), mask) for label in range(out.shape[2])]
    return torch.stack(each).nanmean(0).to(out.dtype)


def _ranking(name: str, out: Tensor, target: Tensor, mask: Tensor, *, positive: int) -> Tensor:
    """(k,) an area under a curve: of the positive class of two, or the mean over the classes where it is defined."""
    area = AREAS[name]
    scores = class_scores(out)
    if out.shape[2] == 2:
        return area(scores[:, :, positive], (target == positive).to(mask.dtype), mask).to(out.dtype)
    each = [area(scores[:, :, label], (target == label).to(mask.dtype), mask) for label in range(out.shape[2])]
    return torch.stack(each).nanmean(0).to(out.dtype)


def class_scores(out: Tensor) -> Tensor:
    """(…, c) the log odds of every class, which rank rows as their probabilities do, but never saturate to ties."""
    logs = out.log_softmax(-1)
    odds = logs - torch.log1p(-logs.exp())
    # 1 − p cancels for the most probable class only, so its odds are taken against the sum of the others.
    best = out.argmax(-1, keepdim=True)
    rest = out.scatter(-1, best, -torch.inf).logsumexp(-1, keepdim=True)
    return odds.scatter(-1, best, out.gather(-1, best) - rest)


def roc_auc(scores: Tensor, hits: Tensor, weights: Tensor) -> Tensor:
    """(k,) probability that a positive row scores higher than a negative one, with ties counting one half.

    Args:
        scores: (k, m).
        hits: (k, m) 1 for rows of the positive class, 0 for others.
        weights: (k, m).

    Reference: Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143 (1982).
    """
    first, last, hits, weights = _ranked(scores, hits, weights)
    positives, negatives = weights * hits, weights * (1.0 - hits)
    below = F.pad(negatives.cumsum(1), (1, 0))
    beaten = (below.gather(1, first) + below.gather(1, last)) / 2.0
    return (positives * beaten).sum(1) / (positives.sum(1) * negatives.sum(1))


def average_precision(scores: Tensor, hits: Tensor, weights: Tensor) -> Tensor:
    """(k,) area under the precision-recall curve as a sum of steps: the mean precision at the positive rows' scores.

    See `roc_auc` for the arguments.
    """
    first, _, hits, weights = _ranked(scores, hits, weights)
    positives = weights * hits
    rest = F.pad(weights.cumsum(1), (1, 0)), F.pad(positives.cumsum(1), (1, 0))
    chosen, found = (total[:, -1:] - total.gather(1, first) for total in rest)
    # For padding that scores above all other rows, `chosen` is 0, but its weight is 0 as well.
    return (positives * _share(found, chosen)).sum(1) / positives.sum(1)


AREAS = {"roc_auc": roc_auc, "pr_auc": average_precision}
"""The function of every metric in `RANKING_METRICS`."""


def _ranked(scores: Tensor, hits: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions of the first and after the last of every row's ties in ascending order, and hits and weights in this order.

    All are (k, m). Weights are doubles, so that sums over many rows lose no precision.
    """
    ordered, order = scores.sort(1)
    ordered = ordered.contiguous()
    first = torch.searchsorted(ordered, ordered)
    last = torch.searchsorted(ordered, ordered, right=True)
    return first, last, hits.gather(1, order).double(), weights.gather(1, order).double()
