"""The protocol in words, and where everything came from: what a reader needs to believe a number, or to repeat it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.report.axes import number
from service.report.content import Block, Source, Table, Text, objective
from service.result import Delivered


def protocol(source: Source) -> Iterator[Block]:
    """How the numbers came about."""
    yield from map(Text, _sentences(source))


def _sentences(source: Source) -> Iterator[str]:
    result, spec = source.result, source.study.spec
    rows = result.rows
    copies = (
        f" {rows.duplicates:,} rows repeat another one; copies stay on one side of every split." if rows.duplicates else ""
    )
    yield (
        f"The rows were divided first, fixed by the seed {spec.get('seed', 0)}: {rows.train:,} to train, {rows.valid:,} to "
        f"validate, {rows.test:,} locked away to test.{copies} Preprocessing was fitted on training rows only."
    )
    counts = source.study.counts
    budget, names = spec.get("budget", {}), " and ".join(map(objective, source.study.objectives))
    sampler, pruner = spec.get("sampler", {}).get("name", "?"), spec.get("pruner", {}).get("name", "?")
    yield (
        f"{counts.finished} trials of at most {budget.get('epochs', '?')} epochs were searched with the sampler "
        f"{sampler} and the pruner "
        f"{pruner}: {counts.complete} complete, {counts.pruned} pruned because they were worse than their peers, "
        f"{counts.fail} failed. "
        f"Each was judged by its {names} on validation rows{_stopping(spec)}."
    )
    chosen = "the best settings"
    if result.front:
        chosen = (
            f"settings of the front, which no other trial dominates in {names} (those with the best {source.metric} "
            "first, and the next front's where it has too few)"
        )
    yield (
        f"Then {chosen}, the same network with every regularizer off, and the framework's defaults were "
        "trained anew, each "
        f"over the same {result.seeds} seeds. The winner has the best mean {source.metric} over seeds on "
        "validation rows. Only then was the test part opened, once, to score all of them; nothing was chosen by test scores."
    )
    yield (
        "Intervals are 95 % and cover which rows the test part happens to hold and which seeds the networks happened "
        "to have. They "
        "do not cover another way of collecting the data."
    )


def _stopping(spec: Mapping[str, Any]) -> str:
    stopping = spec.get("early_stopping")
    if not stopping:
        return ""
    return f", and stopped when {stopping.get('patience', '?')} epochs in a row were no better"


def provenance(source: Source) -> Iterator[Block]:
    """Versions, seeds, data, time, and who looked at the test part."""
    result, study = source.result, source.study
    made_of = result.provenance
    data = study.spec.get("data", {})
    facts = {
        "study": f"{study.id}, {study.name}",
        "submitted": f"{study.created_at:%Y-%m-%d %H:%M} UTC",
        "seed": str(study.spec.get("seed", 0)),
        "data": str(data.get("dataset") or data.get("path") or "?"),
        "began with": _start(study.spec.get("model", {})),
        "hash of the data": made_of.data_hash if made_of else None,
        "device": made_of.device if made_of else None,
        "trials": f"{study.counts.finished} with {study.epochs:,} epochs in all",
        "wall time": f"{number(result.wall_seconds)} s",
        "of which finalizing": f"{number(result.finalizing_seconds)} s",
        "versions": ", ".join(f"{name} {said}" for name, said in made_of.versions.items() if said) if made_of else None,
        "model": _model(result.model) if result.model else None,
        "readings of the test part": str(result.test_accesses),
    }
    yield Table(("what", "value"), [(name, value) for name, value in facts.items() if value])
    if source.test_record:
        rows = [(f"{each.at:%Y-%m-%d %H:%M} UTC", each.who, each.purpose) for each in source.test_record]
        yield Table(("test part read", "by", "for"), rows)


def _start(model: Mapping[str, Any]) -> str | None:
    if not model.get("start_from"):
        return None
    return f"the network of study {model['start_from']}; SHA-256 of its archive {model['start_sha256'][:16]}…"


def _model(model: Delivered) -> str:
    if not model.available or model.sha256 is None:
        return f"none: {model.reason}"
    return f"{model.rule} Seed {model.seed}, epoch {model.epoch}; SHA-256 of the archive {model.sha256[:16]}…"
