"""What is kept of the winner beyond its scores: one trained network to download, and its predictions as pictures.

One call from finalizing; nothing in here decides anything, so it can't change an answer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from service.result import ChosenNetwork, Delivered, Pictures, Winner
from service.spec import StudySpec
from service.store.records import StudyRecord
from workers.answer import Answer, Prepared
from workers.answer.networks import outputs
from workers.archive import CannotExport, Trained, build_archive
from workers.scoring.pictures import test_pictures
from workers.searching.provenance import data_hash

TARGET = "target"
"""What the target is called where the data has no columns."""


@dataclass(frozen=True)
class Kept:
    """``archive`` is None where there is none; ``model`` then has the reason. ``pictures`` are what a report draws."""

    archive: bytes | None
    model: Delivered
    pictures: Pictures

    def within(self, limit: int) -> Kept:
        """The same, without an archive of more than ``limit`` bytes."""
        if self.archive is None or len(self.archive) <= limit:
            return self
        reason = f"the model has {len(self.archive)} bytes; REGSEARCH_MAX_MODEL_MB allows {limit}"
        return Kept(None, self.model.withheld(reason), self.pictures)


@dataclass(frozen=True)
class Keeper:
    """Keeps the winner's best network of one study."""

    study: StudyRecord
    spec: StudySpec
    data: Prepared

    def keep(self, answer: Answer) -> Kept:
        """The archive of the network, and pictures of what it says about the test rows."""
        shape = self.data.shape(answer.model.recipe)
        model = Trained(self.spec.model.word, answer.model.recipe, shape, answer.model.weights, self.data.folds[0])
        chosen, winner = self._chosen(answer), answer.findings.winner
        out = outputs(shape, answer.model.weights, answer.test.x)
        labels, scale = self.data.table.labels, model.fold.target
        assert self.spec.task is not None, "a stored spec is resolved"
        pictures = Pictures(test=test_pictures(self.spec.task, out, answer.test.y.cpu(), labels, scale))
        try:
            archive = build_archive(model, self._about(chosen, winner))
        except CannotExport as error:
            return Kept(None, Delivered.without_archive(chosen, str(error)), pictures)
        sha256 = hashlib.sha256(archive).hexdigest()
        return Kept(archive, Delivered.as_archive(chosen, len(archive), sha256), pictures)

    def _chosen(self, answer: Answer) -> ChosenNetwork:
        run, folds = answer.run, len(self.data.folds)
        part = f", trained on the first of {folds} folds" if folds > 1 else ""
        metric = str(self.spec.metric).replace("_", " ")
        networks = answer.findings.winner.valid.n
        return ChosenNetwork(
            of=answer.model.name,
            seed_index=answer.model.seed,
            seed=run.fold_seeds[0][1],
            epoch=run.best_epoch + 1,
            validation=run.best_value,
            rule=f"Of the winner's {networks} networks, one per seed, it has the best validation {metric}{part}.",
        )

    def _about(self, chosen: ChosenNetwork, winner: Winner) -> dict[str, Any]:
        table, model, scores = self.data.table, self.spec.model, winner.to_json()
        return {
            "study": {"id": self.study.id, "name": self.study.name},
            "task": str(self.spec.task),
            "target": self.spec.data.target or TARGET,
            "classes": list(table.labels),
            "metric": str(self.spec.metric),
            "direction": self.spec.direction,
            "chosen": chosen.to_json(),
            "scores": {"this_network": chosen.validation, "valid": scores["valid"], "test": scores["test"]},
            "data": {"rows": table.rows, "hash": data_hash(table)},
            **({"start": {"study": model.start_from, "sha256": model.start_sha256}} if model.start_from else {}),
        }
