"""A share of each label's weight spread over all classes, as torch's cross-entropy (Szegedy et al., CVPR 2016)."""

from __future__ import annotations

from torch import Tensor

from workers.stack.techniques.base import Columns, Technique


class LabelSmoothing(Technique):
    """After `class_weights`, whose weights the spread share has too."""

    name = "label_smoothing"
    order = 11

    def on_losses(self, losses: Tensor, out: Tensor, labels: Tensor, columns: Columns, on: frozenset[str]) -> Tensor:
        """(1 − ε)·loss + ε·(mean of the losses of all labels)."""
        spread = columns[self.name][:, None]
        logs = out.log_softmax(2)
        others = logs * columns["class_weights"][:, None] if "class_weights" in on else logs
        return (1.0 - spread) * losses - spread * others.mean(2)


TECHNIQUES = (LabelSmoothing(),)
