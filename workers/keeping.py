"""What is kept of the winner beyond its scores: one trained network to download, and its predictions as pictures.

One call from finalizing; nothing in here decides anything, so it can't change an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from service.spec import StudySpec
from service.store.records import StudyRecord
from workers.archive import CannotExport, Trained, build_archive
from workers.data import RawTable
from workers.models import ModelShape, build_model
from workers.pictures import curves, test_pictures
from workers.scoring import Interval

if TYPE_CHECKING:
    from workers.finalize import Candidate, Prepared

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Kept:
    """``archive`` is None where there is none; ``said`` then has the reason. ``pictures`` are what a report draws."""

    archive: bytes | None
    said: Mapping[str, Any]
    pictures: Mapping[str, Any]

    def within(self, limit: int) -> Kept:
        """The same, without an archive of more than ``limit`` bytes."""
        if self.archive is None or len(self.archive) <= limit:
            return self
        reason = f"the model has {len(self.archive)} bytes; REGSEARCH_MAX_MODEL_MB allows {limit}"
        return Kept(None, {**self.said, "available": False, "reason": reason}, self.pictures)


@dataclass(frozen=True)
class Keeper:
    """Keeps a winner's best network. ``test`` are features and target of the test rows, which were opened for scoring."""

    study: StudyRecord
    spec: StudySpec
    data: Prepared
    test: tuple[Tensor, Tensor]

    def keep(self, winner: Candidate, baseline: Candidate, score: Interval | None) -> Kept:
        """The archive of the winner's best network on validation data, and the pictures of winner and baseline."""
        seed, model = self._best(winner)
        said = self._chosen(winner, seed)
        pictures: dict[str, Any] = {
            "curves": {each.name: curves(list(each.runs.values())) for each in (winner, baseline)},
            "test": test_pictures(
                str(self.spec.task), predict(model, self.test[0]), self.test[1], self.data.table.labels, model.fold.target
            ),
        }
        scores = {
            "this_network": winner.runs[seed].best_value,
            "valid": winner.valid.to_json(),
            "test": score.to_json() if score else None,
        }
        try:
            archive = build_archive(model, self._about(said, scores))
        except CannotExport as error:
            return Kept(None, {**said, "available": False, "reason": str(error)}, pictures)
        kept = {"available": True, "bytes": len(archive), "sha256": hashlib.sha256(archive).hexdigest()}
        return Kept(archive, {**said, **kept}, pictures)

    def _best(self, winner: Candidate) -> tuple[int, Trained]:
        """Index of the seed with the best validation value, of equal ones the first; and its network of the first fold."""
        sign = 1.0 if self.spec.direction == "minimize" else -1.0
        seed = min(winner.runs, key=lambda index: (sign * winner.runs[index].best_value, index))
        shape = ModelShape.of(winner.recipe, self.data.device.inputs, self.data.device.outputs)
        weights = winner.weights[seed][0]
        return seed, Trained(self.spec.model.family, winner.recipe, shape, weights, self.data.folds[0])

    def _chosen(self, winner: Candidate, seed: int) -> dict[str, Any]:
        run, folds = winner.runs[seed], len(self.data.folds)
        part = f", trained on the first of {folds} folds" if folds > 1 else ""
        metric = str(self.spec.metric).replace("_", " ")
        rule = f"Of the winner's {len(winner.runs)} networks, one per seed, it has the best validation {metric}{part}."
        return {
            "of": winner.name,
            "seed_index": seed,
            "seed": run.fold_seeds[0][1],
            "epoch": run.best_epoch + 1,
            "validation": run.best_value,
            "rule": rule,
        }

    def _about(self, chosen: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
        table = self.data.table
        return {
            "study": {"id": self.study.id, "name": self.study.name},
            "task": str(self.spec.task),
            "target": self.spec.data.target or "target",
            "classes": list(table.labels),
            "metric": str(self.spec.metric),
            "direction": self.spec.direction,
            "chosen": dict(chosen),
            "scores": dict(scores),
            "data": {"rows": table.rows, "fingerprint": fingerprint(table)},
        }


@torch.no_grad()
def predict(model: Trained, x: Tensor) -> Tensor:
    """(r, o) outputs of one trained network, as an ordinary module on the CPU."""
    module = build_model(model.shape)
    module.load_state_dict(dict(model.weights), strict=True)
    module.eval()
    return torch.cat([module(part) for part in torch.split(x, _ROWS_AT_ONCE)])


def fingerprint(table: RawTable) -> str:
    """A hash of all rows with their targets, in order: whether two studies had the same data."""
    content = hashlib.sha256(table.row_hashes.tobytes())
    content.update(table.target.tobytes())
    return content.hexdigest()[:16]
