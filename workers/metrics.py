"""Validation metrics of all lanes at once, on the device.

Shapes: `k` lanes, `m` rows, `c` classes; rows count as often as their mask says. Equal to
scikit-learn's metrics of the same names (tests/unit/test_metrics.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NAMES = {
    "classification": ("loss", "accuracy", "balanced_accuracy", "f1_macro", "log_loss"),
    "regression": ("loss", "rmse", "mae", "r2"),
}


def evaluate(task: str, out: Tensor, target: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
    """All metrics of a task.

    Args:
        task: `classification` or `regression`.
        out: (k, m, outputs) logits, or standardized predictions.
        target: (k, m) class indices, or standardized targets.
        mask: (k, m) weight of each row: 0 for padding, a count in a bootstrap.
        scale: (k,) standard deviation of the regression target.

    Returns:
        (k, len(NAMES[task])), a column per name, in order.
    """
    if task == "regression":
        return _regression(out.squeeze(-1), target, mask, scale)
    return _classification(out, target, mask)


def _regression(out: Tensor, target: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
    rows = mask.sum(1)
    error = out - target
    mse = (error.square() * mask).sum(1) / rows
    mean = (target * mask).sum(1) / rows
    variance = ((target - mean[:, None]).square() * mask).sum(1) / rows
    mae = (error.abs() * mask).sum(1) / rows
    return torch.stack([mse, mse.sqrt() * scale, mae * scale, 1.0 - mse / variance], dim=1)


def _classification(out: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    loss = (F.cross_entropy(out.transpose(1, 2), target, reduction="none") * mask).sum(1) / mask.sum(1)
    table = confusion(out.argmax(2), target, mask, out.shape[2])
    hits = table.diagonal(dim1=1, dim2=2)
    actual, predicted = table.sum(2), table.sum(1)
    present = (actual > 0).to(out.dtype)
    recall = hits / actual.clamp(min=1.0)
    balanced = recall.sum(1) / present.sum(1)
    # scikit-learn averages F1 over the classes that occur among targets or predictions.
    seen = ((actual + predicted) > 0).to(out.dtype)
    f1 = (2.0 * hits / (actual + predicted).clamp(min=1.0)).sum(1) / seen.sum(1)
    accuracy = hits.sum(1) / mask.sum(1)
    return torch.stack([loss, accuracy, balanced, f1, loss], dim=1)


def confusion(predicted: Tensor, target: Tensor, mask: Tensor, classes: int) -> Tensor:
    """(k, c, c) counts; rows are true classes, columns predicted ones."""
    k = predicted.shape[0]
    cells = target * classes + predicted
    table = torch.zeros(k, classes * classes, device=predicted.device)
    return table.scatter_add_(1, cells, mask).view(k, classes, classes)
