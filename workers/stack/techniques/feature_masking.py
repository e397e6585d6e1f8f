"""Masking of features, the cutout of a table (Kadra et al., NeurIPS 2021): zero is a standardized feature's mean."""

from __future__ import annotations

from workers.stack.techniques.base import Batch, Technique


class FeatureMasking(Technique):
    """After all noise; nothing is rescaled."""

    name = "feature_masking"
    order = 41

    def on_batch(self, batch: Batch, on: frozenset[str]) -> None:
        """Every element becomes zero at the lane's rate."""
        rate = batch.columns["feature_masking"].view(-1, *(1 for _ in batch.x.shape[1:]))
        batch.x = batch.x * (batch.uniform("feature_masking") >= rate)


TECHNIQUES = (FeatureMasking(),)
