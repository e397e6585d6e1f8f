"""The compiled update is the eager one; when it is used, and what becomes of its last runs."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from tests.unit.stack.runs import data, protocol, recipe
from tests.unit.stack.test_equality import eight
from workers.stack import compiling, programs
from workers.stack.programs import Program, _turn_products
from workers.stack.run import Run
from workers.stack.runner import Compiled, StackRunner
from workers.stack.stack import StackKey


@pytest.mark.costly
def test_compiled_runs_have_the_curves_of_eager_ones(tmp_path: Path) -> None:
    """Eleven runs on eight compiled lanes: three wait, and the last ones end in an eager stack."""
    settings = [*eight(normalization="batch"), *eight(normalization="batch")[:3]]
    on, how = data(), protocol(epochs=4)
    key = StackKey.of(settings[0], on.inputs, on.outputs)

    def curves(fixed: int | None) -> tuple[list[list[float]], list[int]]:
        runner = StackRunner(key, on, compiled=None if fixed is None else Compiled(fixed, tmp_path))
        runs = [Run(i, setting, ((0, 100 + i),), how) for i, setting in enumerate(settings)]
        runner.add(runs)
        lanes = []
        while runner.wanted_lanes:
            runner.last_call = not runner.waiting
            for run in runner.epoch():
                # One run stays a while longer alone, for the tail.
                if run.ending and not (run is runs[-1] and len(runner.runs) > 1):
                    runner.remove(run)
            lanes.append(runner.stack.lanes)
        return [run.curve["loss"][:4] for run in runs], lanes

    eager, eager_lanes = curves(None)
    compiled, compiled_lanes = curves(8)
    assert eager_lanes[0] == 11
    assert set(compiled_lanes) <= {8, 3, 2, 1}
    assert compiled_lanes[0] == 8
    np.testing.assert_allclose(compiled, eager, rtol=5e-4, atol=5e-5)


def test_a_program_writes_into_its_arguments_and_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Pair:
        mean: torch.Tensor
        count: torch.Tensor

    def learn(pair: Pair, x: torch.Tensor) -> torch.Tensor:
        pair.count.add_(1)
        pair.mean.add_((x - pair.mean) / pair.count)
        return pair.mean.square().sum(1)

    x = torch.zeros(3, 4)

    def run() -> tuple[Pair, torch.Tensor]:
        program, pair = Program(learn, "learn", tmp_path), Pair(torch.zeros(3, 4), torch.zeros(3, 1))
        for step in range(3):
            squares = program(pair, torch.full((3, 4), float(step)))
        return pair, squares

    pair, squares = run()
    torch.testing.assert_close(pair.mean, torch.ones(3, 4))
    torch.testing.assert_close(squares, torch.full((3,), 4.0))
    (kept,) = tmp_path.iterdir()
    made = kept.stat().st_ino
    again, _ = run()
    torch.testing.assert_close(again.mean, pair.mean, rtol=0, atol=0)
    assert [(each, each.stat().st_ino) for each in tmp_path.iterdir()] == [(kept, made)]
    monkeypatch.setattr(programs, "KEPT", 1)
    os.utime(kept, (0, 0))  # not used for the longest time
    other = Program(learn, "something else", tmp_path)
    name = tmp_path / f"{other._name([(each.shape, each.stride(), each.dtype) for each in (*vars(pair).values(), x)])}.pt2"
    name.write_bytes(b"broken")
    other(pair, x)
    assert [*tmp_path.iterdir()] == [name] != [kept]
    torch.testing.assert_close(pair.count, torch.full((3, 1), 4.0))


def test_a_product_that_is_used_transposed_is_computed_so() -> None:
    """As the gradient of a layer's weights is; one that others see as it is stays."""

    def products(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.bmm(b, b.transpose(1, 2))
        return torch.bmm(a.transpose(1, 2), b).transpose(1, 2).reshape(2, -1), seen.transpose(1, 2) + seen

    a, b = torch.randn(2, 3, 4), torch.randn(2, 3, 5)
    graph = make_fx(products)(a, b)
    _turn_products(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    for ours, reference in zip(graph(a, b), products(a, b), strict=True):
        torch.testing.assert_close(ours, reference)
    made = {node.name: node for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default)}
    assert len(made) == 2
    transposed = [node for node in made.values() if any("transpose" in user.name for user in node.users)]
    assert len(transposed) == 1, "that which is also seen as it is"


def test_few_lanes_do_not_use_a_program_for_many(tmp_path: Path) -> None:
    assert [Compiled(16, tmp_path).suits(lanes) for lanes in (4, 5, 40)] == [False, True, True]


def test_compiling_pays_for_long_work_only() -> None:
    assert compiling.pays(lane_updates=1e6, lane_updates_per_second=1000)
    assert not compiling.pays(lane_updates=1e4, lane_updates_per_second=1000)


def test_a_worker_compiles_for_any_number_of_stack_keys() -> None:
    """The compiler itself stops at eight programs of the same code, and a long-lived worker would become slow."""
    compiling.compiled(torch.sin)
    made: list[Any] = []

    def count(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        made.append(graph)
        return graph.forward

    class Scale:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.factor

    for factor in range(12):
        torch.compile(Scale(factor), backend=count, dynamic=False)(torch.ones(3))
    assert len(made) == 12


def test_without_a_compiler_stacks_stay_eager(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    compiling.available.cache_clear()
    assert not compiling.available("cpu")
    assert not compiling.available("cpu")
    compiling.available.cache_clear()
    assert [record.message for record in caplog.records if "no C++ compiler" in record.message] != []
    assert len(caplog.records) == 1


def test_occupancy_counts_idle_lanes() -> None:
    on, how = data(), protocol(epochs=2)
    runner = StackRunner(StackKey.of(recipe(), on.inputs, on.outputs), on)
    runner.add([Run(i, recipe(), ((0, i),), how) for i in range(3)])
    runner.epoch()
    assert (runner.lane_epochs, runner.computed_lane_epochs) == (3, 3)
