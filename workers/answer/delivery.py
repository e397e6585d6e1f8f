"""What is kept of the winner beyond its scores: one trained network to download, and its predictions as pictures.

One call from finalizing; nothing in here decides anything, so it can't change an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.spec import StudySpec
from service.store.records import StudyRecord
from workers.answer import Answer
from workers.answer.networks import outputs
from workers.archive import Trained, build_archive
from workers.archive.program import Training, program
from workers.scoring.pictures import test_pictures
from workers.study_data import Prepared, target_name


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
    """Keeps the winner's best network of one study."""

    study: StudyRecord
    spec: StudySpec
    data: Prepared

    def keep(self, answer: Answer) -> Kept:
        """The archive of the network, and pictures of what it says about the test rows."""
        shape = self.data.shape(answer.model.recipe)
        model = Trained(answer.model.recipe, shape, answer.model.weights, self.data.folds[0], self._training())
        said = self._chosen(answer)
        out = outputs(shape, answer.model.weights, answer.test.x)
        labels, scale = self.data.table.labels, model.fold.target
        pictures = {"test": test_pictures(str(self.spec.task), out, answer.test.y.cpu(), labels, scale)}
        winner = answer.result["winner"]
        scores = {"this_network": answer.run.best_value, "valid": winner["valid"], "test": winner["test"]}
        archive = build_archive(model, self._about(said, scores))
        kept = {"available": True, "bytes": len(archive), "sha256": hashlib.sha256(archive).hexdigest()}
        kept["program"] = program(shape, model.recipe, model.training)
        return Kept(archive, {**said, **kept}, pictures)

    def _training(self) -> Training:
        spec, stopping = self.spec, self.spec.early_stopping
        target, epochs = spec.data.target or TARGET, spec.budget.epochs
        if stopping is None:
            return Training(str(spec.task), target, epochs, str(spec.metric))
        watched = str(spec.metric) if stopping.monitor == "metric" else stopping.monitor
        return Training(
            str(spec.task), target, epochs, watched, stopping.patience, stopping.min_delta, stopping.restore_best
        )

    def _chosen(self, answer: Answer) -> dict[str, Any]:
        run, folds = answer.run, len(self.data.folds)
        part = f", trained on the first of {folds} folds" if folds > 1 else ""
        metric = str(self.spec.metric).replace("_", " ")
        networks = answer.result["winner"]["valid"]["n"]
        rule = f"Of the winner's {networks} networks, one per seed, it has the best validation {metric}{part}."
        return {
            "of": answer.model.name,
            "seed_index": answer.model.seed,
            "seed": run.fold_seeds[0][1],
            "epoch": run.best_epoch + 1,
            "validation": run.best_value,
            "rule": rule,
        }

    def _about(self, chosen: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
        table, model = self.data.table, self.spec.model
        return {
            "study": {"id": self.study.id, "name": self.study.name},
            "task": str(self.spec.task),
            "target": target_name(self.spec),
            "classes": list(table.labels),
            "metric": str(self.spec.metric),
            "direction": self.spec.direction,
            "chosen": dict(chosen),
            "scores": dict(scores),
            "data": {"rows": table.rows, "hash": table.data_hash()},
            **({"start": {"study": model.start_from, "sha256": model.start_sha256}} if model.start_from else {}),
        }
