"""How many lanes a study gets, in which blocks, and how many threads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from service.search import Search
from service.spec import Recipe, StudySpec
from tests.unit.stack.runs import data, recipe
from workers.modules import published
from workers.planning import plan as plan_module
from workers.planning.plan import Plan, block_lanes, make_plan, operations, round_size
from workers.planning.process import usual_threads
from workers.stack.layout import Threads
from workers.stack.stack import StackKey
from workers.stack.workshop import Workshop


def planned(monkeypatch: pytest.MonkeyPatch, cores: int, **study: Any) -> Plan:
    monkeypatch.setattr(plan_module, "core_count", lambda: cores)
    spec = StudySpec.model_validate({"data": {"dataset": "wine"}, **study}).resolved("classification")
    params, _ = Search(spec, seed=0).propose(1)[0]
    return make_plan(spec, params, data())


@pytest.mark.parametrize(("lanes", "size"), [(1, 1), (7, 7), (9, 8), (31, 28), (64, 64), (79, 64), (80, 80), (1000, 896)])
def test_captured_stacks_have_one_of_a_few_sizes(lanes: int, size: int) -> None:
    assert round_size(lanes) == size


def test_the_search_learns_from_its_own_trials_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores in (1, 2, 16, 64):
        found = planned(monkeypatch, cores, budget={"trials": 200})
        assert 8 <= found.capacity <= 40
        assert found.block_lanes is not None
        assert found.capacity >= min(40, cores * found.block_lanes)
        assert found.threads == cores
    assert planned(monkeypatch, 2, budget={"trials": 12}).capacity == 8


def test_a_block_has_work_for_the_interpreter_and_leaves_some_to_the_other_cores() -> None:
    def lanes(width: int, most: int = 1000, cores: int = 2, folds: int = 1) -> int:
        return block_lanes(StackKey.of(recipe(width=width), (64,), 10), most, cores, folds)

    assert [lanes(width) for width in (64, 256, 512, 2048)] == [8, 4, 2, 1]
    assert lanes(64, most=8, cores=2) == 2, "all cores have work"
    assert lanes(64, most=8, cores=16) == 1


def test_a_block_has_room_for_whole_trials() -> None:
    def lanes(folds: int, width: int = 64) -> int:
        return block_lanes(StackKey.of(recipe(width=width), (64,), 10), 1000, 2, folds)

    assert [lanes(folds) for folds in (2, 3, 4, 5, 7, 10, 15)] == [10, 9, 8, 10, 7, 10, 8]
    assert lanes(5, width=2048) == 1


def test_perceptrons_have_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(monkeypatch, 2).compiled_lanes is not None
    assert planned(monkeypatch, 2, space={"micro_batches": 4}).compiled_lanes is None


def test_modules_that_can_be_traced_have_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(schema.error for schema in published(["mynets.good:Perceptron", "mynets.good:FunctionalDropout"]))
    perceptron, random = ({"module": f"mynets.good:{name}"} for name in ("Perceptron", "FunctionalDropout"))
    assert planned(monkeypatch, 2, model=perceptron).compiled_lanes is not None
    assert planned(monkeypatch, 2, model=random).compiled_lanes is None


def test_operations_of_a_module_are_counted() -> None:
    """A matrix of weights is used once for a row, a kernel once for each pixel."""
    published(["mynets.good:Perceptron", "mynets.good:ResNet", "mynets.good:Encoder"])
    common: dict[str, Any] = {"family": "module", "batch_size": 16, "init": "own"}
    perceptron = Recipe({**common, "module": "mynets.good:Perceptron", "args.width": 16})
    assert operations(StackKey.of(perceptron, (6,), 3)) == 2 * (6 * 16 + 16 * 16 + 16 * 3)
    network = Recipe({**common, "module": "mynets.good:ResNet", "args.width": 8})
    assert operations(StackKey.of(network, (1, 10, 10), 3)) == 2 * (100 * 9 * 8 * (1 + 8) + 8 * 3)
    encoder = Recipe({**common, "module": "mynets.good:Encoder", "args.width": 8})
    products = 12 * (6 * 8 + 4 * 8 * 8 + 2 * 8 * 16) + 8 * 3  # embedding, projections, feedforward; head
    attention = 2 * 12 * 12 * 8
    assert operations(StackKey.of(encoder, (12, 6), 3)) == 2 * (products + attention)


def test_a_repeated_search_goes_over_to_programs_when_the_first_one_did(tmp_path: Path) -> None:
    key = StackKey.of(recipe(), (3,), 2)
    other = StackKey.of(recipe(normalization="batch"), (3,), 2)
    first = Plan(16, 4, 2, 4, {f"{key.digest}/0": {"update": 3}, f"{other.digest}/0": {"update": 0, "evaluation": 9}})
    again = Plan.of(asdict(first))
    assert (again.capacity, again.block_lanes, again.taken_over) == (16, 4, first.taken_over)
    workshop, threads, cpu = Workshop(tmp_path), Threads(), torch.device("cpu")
    found = [again.layout(workshop, threads, cpu, f"{each}/0").taken_over for each in (key.digest, other.digest, "new")]
    assert found == [{"update": 3}, {"update": 0, "evaluation": 9}, {}]
    assert Plan(16, 4, 2, 4).layout(workshop, threads, cpu, "any").taken_over is None
    assert again.final_layout(workshop, threads, cpu, other).taken_over == {"update": 0, "evaluation": 0}
    assert again.final_layout(workshop, threads, cpu, key).workshop is None, "it had no program for evaluations"


def test_programs_are_built_for_long_searches_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(monkeypatch, 2, budget={"trials": 20_000}).builds
    short = planned(monkeypatch, 2, budget={"trials": 12, "epochs": 8})
    assert (short.builds, short.compiled_lanes is not None) == (False, True), "those that are there are used"


def test_a_plan_of_an_earlier_version_can_be_read() -> None:
    assert Plan.of({"capacity": 32, "compiled_lanes": 32, "threads": 1}) == Plan(32, 32, 1)


def test_a_plan_takes_its_threads_and_gives_them_back() -> None:
    usual = torch.get_num_threads()
    try:
        Plan(64, 4, threads=usual_threads(), block_lanes=4).take_threads()
        assert torch.get_num_threads() == 1
        Plan(8, None).take_threads()
        assert torch.get_num_threads() == usual_threads()
    finally:
        torch.set_num_threads(usual)
