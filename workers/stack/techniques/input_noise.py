"""Gaussian noise on the examples (Bishop, "Training with noise is equivalent to Tikhonov regularization", 1995)."""

from __future__ import annotations

from workers.stack.techniques.base import Batch, Technique


class InputNoise(Technique):
    """After augmentation and mixing."""

    name = "input_noise"
    order = 40

    def on_batch(self, batch: Batch, on: frozenset[str]) -> None:
        """x + deviation · N(0, 1), for every element."""
        deviation = batch.columns["input_noise"].view(-1, *(1 for _ in batch.x.shape[1:]))
        batch.x = batch.x + deviation * batch.normal("input_noise")


TECHNIQUES = (InputNoise(),)
