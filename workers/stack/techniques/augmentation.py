"""Image augmentation: every image of every lane drawn anew in each update, by a hash of the lane's key.

What is done to an image stands in `workers.plain.augmentation`; here lanes and images become one axis for it.
"""

from __future__ import annotations

import torch

from workers.plain.augmentation import AUGMENTATIONS, SLOTS, augmented
from workers.stack.hashing import draw, uniform
from workers.stack.techniques.base import Batch, Technique


class Augmentation(Technique):
    """One setting of `AUGMENTATIONS`; the first of those that are on does the work of all, which is one pass."""

    order = 20

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]  # one class for seven settings

    def on_batch(self, batch: Batch, on: frozenset[str]) -> None:
        """All augmentations in use, if this is the first of them."""
        used = [name for name in AUGMENTATIONS if name in on]
        if used[0] != self.name:
            return
        k, images = batch.x.shape[:2]
        element = torch.arange(images * len(SLOTS), dtype=torch.int32, device=batch.x.device)
        numbers = uniform(draw(batch.key("augmentation")[:, None], element[None])).view(k * images, len(SLOTS))
        strengths = {name: batch.columns[name][:, None].expand(k, images).flatten() for name in used}
        drawn = dict(zip(SLOTS, numbers.unbind(1), strict=True))
        batch.x = augmented(batch.x.flatten(0, 1), strengths, drawn).view(batch.x.shape)


TECHNIQUES = tuple(Augmentation(name) for name in AUGMENTATIONS)
