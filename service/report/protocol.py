"""The protocol in words, and the provenance: what a reader needs to trust a number or to reproduce it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.report.axes import number
from service.report.content import Block, Source, Table, Text, objective
from service.result import Delivered


def protocol(source: Source) -> Iterator[Block]:
    """How the numbers were obtained."""
    yield from map(Text, _sentences(source))


def _sentences(source: Source) -> Iterator[str]:
    result, spec = source.result, source.study.spec
    rows = result.rows
    copies = (
        f" {rows.duplicates:,} rows repeat an earlier one; copies stay on one side of every split."
        if rows.duplicates
        else ""
    )
    seed = f"with the seed {spec.get('seed', 0)}"
    if result.nested is None:
        division = f"The rows were split first, {seed}: {rows.train:,} for training, {rows.valid:,} for validation, "
        division += f"{rows.test:,} locked for testing."
    else:
        division = (
            f"The rows were divided first, {seed}, into {len(result.nested.folds)} outer folds. The search outside of "
        )
        division += "each never saw the rows inside, and ended as described below; one search more was on all rows."
    yield f"{division}{copies} Preprocessing was fitted on training rows only."
    counts = source.study.counts
    budget, names = spec.get("budget", {}), " and ".join(map(objective, source.study.objectives))
    sampler, pruner = spec.get("sampler", {}).get("name", "?"), spec.get("pruner", {}).get("name", "?")
    yield (
        f"The search ran {counts.finished} trials of at most {budget.get('epochs', '?')} epochs with the sampler {sampler} "
        f"and the pruner {pruner}: {counts.complete} complete, {counts.pruned} pruned because they were worse than their "
        f"peers, {counts.fail} failed. Each trial was judged by its {names} on validation rows{_stopping(spec)}."
    )
    chosen = "the best settings"
    if result.front:
        chosen = (
            f"settings of the Pareto front, which no other trial dominates in {names} (those with the best {source.metric} "
            "first, and those of the next front if it has too few)"
        )
    yield (
        f"Then {chosen}, the same network with every regularizer off, and the framework's defaults were trained again, "
        f"each over the same {result.seeds} seeds. The winner has the best mean {source.metric} over seeds on validation "
        "rows. Only then was the test part opened, once, to score all of them; nothing was chosen by test scores."
    )
    yield (
        "The 95 % intervals account for the choice of the test rows and of the seeds. They do not account for other ways "
        "of collecting the data."
    )


def _stopping(spec: Mapping[str, Any]) -> str:
    stopping = spec.get("early_stopping")
    if not stopping:
        return ""
    return f", and stopped after {stopping.get('patience', '?')} epochs in a row without improvement"


def provenance(source: Source) -> Iterator[Block]:
    """Versions, seed, data, time, and the readings of the test part."""
    result, study = source.result, source.study
    made_of = result.provenance
    data = study.spec.get("data", {})
    facts = {
        "study": f"{study.id}, {study.name}",
        "submitted": f"{study.created_at:%Y-%m-%d %H:%M} UTC",
        "seed": str(study.spec.get("seed", 0)),
        "data": str(data.get("dataset") or data.get("path") or "?"),
        "started from": _start(study.spec.get("model", {})),
        "data hash": made_of.data_hash if made_of else None,
        "device": made_of.device if made_of else None,
        "lanes": f"one by one: {made_of.plan.separate}" if made_of and made_of.plan.separate else None,
        "trials": f"{study.counts.finished} with {study.epochs:,} epochs in total",
        "wall time": f"{number(result.wall_seconds)} s",
        "of which finalizing": f"{number(result.finalizing_seconds)} s",
        "versions": ", ".join(f"{name} {version}" for name, version in made_of.versions.items() if version)
        if made_of
        else None,
        "model": _model(result.model) if result.model else None,
        "readings of the test part": str(result.test_accesses),
    }
    yield Table(("what", "value"), [(name, value) for name, value in facts.items() if value])
    if source.test_record:
        rows = [(f"{each.at:%Y-%m-%d %H:%M} UTC", each.who, each.purpose) for each in source.test_record]
        yield Table(("test part read", "by", "for"), rows)


def _start(model: Mapping[str, Any]) -> str | None:
    if model.get("weights"):
        return f"weights of {model['weights']}; SHA-256 of the file {model['weights_sha256'][:16]}…"
    if not model.get("start_from"):
        return None
    return f"the network of study {model['start_from']}; SHA-256 of its archive {model['start_sha256'][:16]}…"


def _model(model: Delivered) -> str:
    if not model.available or model.sha256 is None:
        return f"none: {model.reason}"
    return f"{model.rule} Seed {model.seed}, {model.epoch} epochs; SHA-256 of the archive {model.sha256[:16]}…"
