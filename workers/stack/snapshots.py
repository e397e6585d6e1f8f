"""Snapshots of a stack's lanes: weights at the ends of cycles of the learning rate, judged together with the present ones.

A lane's outputs are then those of the average of its snapshots' and its present predictions (`workers.plain.members.MEANS`).
As snapshots do not change, their predictions on the validation rows are computed once. Lanes without any are left as they
are, not even the last bit. Reference: Huang et al., "Snapshot ensembles: train 1, get M for free" (ICLR 2017).
Shapes: `k` lanes, `m` validation rows, `o` outputs, `P` parameters, `Q` statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.plain.members import MEANS

Row = tuple[Tensor, Tensor]
"""Weights (P,) and statistics (Q,), on the CPU."""


@dataclass
class _Lane:
    taken: list[Row] = field(default_factory=list)
    outs: list[Tensor] = field(default_factory=list)
    best: list[Row] = field(default_factory=list)


class Snapshots:
    """Those of the lanes of one stack, by lane; ``outputs`` gives (m, o) of weights on a lane's validation rows."""

    def __init__(self, task: str, outputs: Callable[[int, Row], Tensor]) -> None:
        self._mean = MEANS[task]
        self._outputs = outputs
        self._lanes: list[_Lane] = []

    def resize(self, keep: Sequence[int], k: int) -> None:
        """Keep the lanes ``keep`` as lanes 0, 1, …, and add some without snapshots up to ``k``."""
        self._lanes = [self._lanes[lane] for lane in keep] + [_Lane() for _ in range(k - len(keep))]

    def forget(self, lane: int) -> None:
        """Begin anew."""
        self._lanes[lane] = _Lane()

    def take(self, lane: int, row: Row) -> None:
        """Keep weights as a snapshot from now on."""
        own, kept = self._lanes[lane], (row[0].cpu().clone(), row[1].cpu().clone())
        own.taken.append(kept)
        own.outs.append(self._outputs(lane, kept))

    def judged(self, out: Tensor) -> Tensor:
        """(k, m, o) of all lanes together with their snapshots, from the outputs ``out`` of the present weights."""
        some = [lane for lane, own in enumerate(self._lanes) if own.outs]
        if not some:
            return out
        out = out.clone()
        for lane in some:
            out[lane] = self.joined([*self._lanes[lane].outs, out[lane]])
        return out

    def joined(self, outs: Sequence[Tensor]) -> Tensor:
        """(m, o) outputs that stand for the average of the predictions ``outs``, (m, o) each."""
        return outs[0] if len(outs) == 1 else self._mean(torch.stack(list(outs)))

    def keep_best(self, lane: int) -> None:
        """Remember the snapshots of a lane as those that belong to its best weights."""
        self._lanes[lane].best = list(self._lanes[lane].taken)

    def best(self, lane: int) -> list[Row]:
        """The snapshots that belong to a lane's best weights."""
        return self._lanes[lane].best

    def saved(self, lane: int) -> dict[str, Tensor]:
        """A lane's snapshots, (n, P) and (n, Q), and the number of those that belong to its best weights."""
        own = self._lanes[lane]
        if not own.taken:
            return {}
        weights, stats = (torch.stack(list(rows)) for rows in zip(*own.taken, strict=True))
        return {"snapshot_weights": weights, "snapshot_stats": stats, "best_snapshots": torch.tensor(len(own.best))}

    def restore(self, lane: int, saved: dict[str, Tensor]) -> None:
        """Bring a lane's snapshots to what `saved` gave."""
        self.forget(lane)
        if "snapshot_weights" not in saved:
            return
        for row in zip(saved["snapshot_weights"], saved["snapshot_stats"], strict=True):
            self.take(lane, row)
        self._lanes[lane].best = self._lanes[lane].taken[: int(saved["best_snapshots"])]
