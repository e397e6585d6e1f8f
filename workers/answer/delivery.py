"""What is kept of the winner besides its scores: trained networks for download, and predictions for charts.

Called once by finalizing, after everything is decided, so it can't change an answer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from service.result import ChosenNetwork, Delivered, Pictures, Refit, Winner
from service.spec import Deliver, StudySpec
from service.store.records import StudyRecord
from workers.answer import Answer
from workers.answer.refit import Refitted
from workers.archive import Trained, build_archive
from workers.archive.program import Training, program
from workers.plain.network import parts
from workers.scoring.pictures import test_pictures
from workers.study_data import Prepared, target_name

T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """``archive`` is None if there is none; ``model`` then has the reason. ``pictures`` are data for a report's charts."""

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
    """Keeps the networks of one study."""

    study: StudyRecord
    spec: StudySpec
    data: Prepared

    def keep(self, answer: Answer, again: Refitted | None = None) -> Kept:
        """The archive of the network of the search, or of those that were trained ``again``; and the network's predictions
        on the test rows, which only that of the search has not been trained on.
        """
        training = self._training(None if again is None or again.folds else again.epochs)
        shape, fold = self.data.shape(answer.model.recipe), self.data.folds[0]
        assert self.spec.task is not None, "a stored spec is resolved"
        out = answer.predicted
        labels, scale = self.data.table.labels, fold.target
        pictures = Pictures(test=test_pictures(self.spec.task, out, answer.test.y.cpu(), labels, scale))
        if again is None:
            model = Trained(answer.model.recipe, shape, parts(answer.model.weights), fold, training)
            chosen = self._chosen(answer)
        else:
            model = Trained(answer.winner.recipe, again.shape, again.networks, again.fold, training)
            chosen = self._trained_again(answer, again)
        archive = build_archive(model, self._about(chosen, answer.findings.winner))
        sha256, code = hashlib.sha256(archive).hexdigest(), program(model.shape, model.recipe, training)
        return Kept(archive, Delivered.as_archive(chosen, len(archive), sha256, code), pictures)

    def _training(self, stop_after: int | None) -> Training:
        spec, stopping = self.spec, self.spec.early_stopping
        aside = {"target": target_name(spec, self.data.table), "weights": spec.data.weights}
        common: dict[str, Any] = {**aside, "epochs": spec.budget.epochs, "stop_after": stop_after}
        if stopping is None:
            return Training(**common, watched=str(spec.metric))
        watched = str(spec.metric) if stopping.monitor == "metric" else stopping.monitor
        rule = stopping.model_dump(include={"patience", "min_delta", "restore_best"})
        return Training(**common, watched=watched, **rule)

    def _trained_again(self, answer: Answer, again: Refitted) -> ChosenNetwork:
        deliver = self.spec.deliver
        assert deliver is not None, "something was trained again"
        average, count, decisions = answer.average, len(again.weights), answer.average.decisions
        scores = "The scores are those of the recipe on part of the rows."
        if self.spec.searches > 1:
            scores = "The test score is that of the procedure: of searches like this one, each on part of the rows."
        refit = Refit(
            rows=again.rows,
            of=deliver.rows,
            epochs=again.epochs,
            single=average.single,
            average=average.average,
            test=average.test if again.folds is None or average.folds is None else average.folds,
            **({} if again.folds is None else {"folds": again.folds}),
        )
        return ChosenNetwork(
            of=answer.winner.name,
            seed_index=self.spec.budget.seeds,
            seed=again.seeds[0],
            epoch=again.epochs,
            validation=average.average if count > 1 else average.single,
            rule=f"{_rule(again, deliver)} {scores}",
            networks=len(again.networks),
            refit=refit,
            calibration=_of(None if decisions is None else decisions.calibrations, deliver.temperature, count),
            thresholds=_of(None if decisions is None else decisions.thresholds, deliver.thresholds, count),
        )

    def _chosen(self, answer: Answer) -> ChosenNetwork:
        run, folds = answer.run, len(self.data.folds)
        part = f", trained on the first of {folds} folds" if folds > 1 else ""
        metric = str(self.spec.metric).replace("_", " ")
        networks, own = answer.findings.winner.valid.n, len(parts(answer.model.weights))
        return ChosenNetwork(
            of=answer.model.name,
            seed_index=answer.model.seed,
            seed=run.fold_seeds[0][1],
            epoch=run.best_epoch + 1,
            validation=run.best_value,
            rule=f"Of the winner's {networks} networks, one per seed, it has the best validation {metric}{part}."
            + _snapshots(own, 1),
            networks=own,
        )

    def _about(self, chosen: ChosenNetwork, winner: Winner) -> dict[str, Any]:
        table, model, scores = self.data.table, self.spec.model, winner.to_json()
        return {
            "study": {"id": self.study.id, "name": self.study.name},
            "task": str(self.spec.task),
            "target": target_name(self.spec, table),
            "classes": list(table.labels),
            **({"levels": table.levels} if table.levels else {}),
            "metric": str(self.spec.metric),
            "quantile": self.spec.quantile,
            "direction": self.spec.direction,
            "chosen": chosen.to_json(),
            "scores": {"this_network": chosen.validation, "valid": scores["valid"], "test": scores["test"]},
            "data": {"rows": table.rows, "hash": table.data_hash()},
            **({"temperature": chosen.calibration.temperature} if chosen.calibration else {}),
            **({"class_biases": list(chosen.thresholds.biases)} if chosen.thresholds else {}),
            **({"start": {"study": model.start_from, "sha256": model.start_sha256}} if model.start_from else {}),
        }


def _rule(again: Refitted, deliver: Deliver) -> str:
    """Of how many networks it is the average, and what each was trained on."""
    count, epochs = len(again.weights), again.epochs
    where = "all rows" if deliver.rows == "all" else "the training and validation rows"
    what = f"The average of {count} networks" if count > 1 else "One network"
    if again.folds is None:
        how = f"trained again on {where} ({again.rows:,}) for {epochs} epochs, the mean of its best ones."
    else:
        each = f"{deliver.seeds} for each of {again.folds} folds of {where} ({again.rows:,})"
        how = f"{each}, trained again without the fold and stopped by it, on average after {epochs} epochs."
    return f"{what} of the winning recipe, {how}{_snapshots(len(again.networks), count)}"


def _snapshots(networks: int, runs: int) -> str:
    each = networks // runs
    return f" Each is the average of its weights at {each} ends of cycles of the learning rate." if each > 1 else ""


def _of(found: tuple[T, T] | None, asked: Literal["auto", "off"], networks: int) -> T | None:
    """That of single networks or of their average, whichever is handed out; None where it is off or there is none."""
    if found is None or asked == "off":
        return None
    alone, together = found
    return together if networks > 1 else alone
