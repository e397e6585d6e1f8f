"""A share of each label's weight spread over all classes, as torch's cross-entropy (Szegedy et al., CVPR 2016).

Of several labels each has two classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from workers.stack.techniques.base import Columns, Technique, per_lane
from workers.stack.techniques.class_weights import of_labels


class LabelSmoothing(Technique):
    """After `class_weights`, whose weights the spread share has too."""

    name = "label_smoothing"
    order = 11

    def on_losses(self, losses: Tensor, out: Tensor, labels: Tensor, columns: Columns, on: frozenset[str]) -> Tensor:
        """(1 − ε)·loss + ε·(mean of the losses of all labels)."""
        spread = per_lane(columns[self.name], losses)
        if labels.ndim == 3:
            without, having = F.softplus(out), F.softplus(-out)
            if "class_weights" in on:
                by = of_labels(columns)
                without, having = without * by[0], having * by[1]
            return (1.0 - spread) * losses + spread * (without + having) / 2.0
        logs = out.log_softmax(2)
        others = logs * columns["class_weights"][:, None] if "class_weights" in on else logs
        return (1.0 - spread) * losses - spread * others.mean(2)


TECHNIQUES = (LabelSmoothing(),)
