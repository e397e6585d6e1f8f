"""The compiled update is the eager one; how programs are made and found, and blocks that go over to them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from tests.unit.stack.runs import data, protocol, recipe
from tests.unit.stack.test_equality import eight
from workers.stack import programs
from workers.stack.building import DECOMPOSITIONS, compile_function, turn_products
from workers.stack.layout import Layout, Threads
from workers.stack.programs import opened, tidy
from workers.stack.run import Run
from workers.stack.runner import StackRunner
from workers.stack.stack import Stack, StackKey
from workers.stack.techniques import techniques_of
from workers.stack.workshop import Workshop

NORMALIZED = {"normalization": "batch"}
MEMBERS = {"members": 3, "numeric_embedding": "piecewise_linear", "cutmix": 0.5}


@pytest.mark.costly
@pytest.mark.parametrize(("folds", "shape"), [(1, NORMALIZED), (2, MEMBERS)], ids=str)
def test_compiled_runs_have_the_curves_of_eager_ones(tmp_path: Path, folds: int, shape: dict[str, Any]) -> None:
    """Eleven runs of one or two folds on blocks of four lanes; after two epochs they go over to programs."""
    settings = [*eight(**shape), *eight(**shape)[:3]]
    on, how = data(folds=folds), protocol(epochs=5)
    if shape is MEMBERS:
        on = replace(on, weights=0.5 + torch.rand(len(on.x), generator=torch.Generator().manual_seed(1)))
    key = StackKey.of(settings[0], on.inputs, on.outputs)

    def curves(layout: Layout) -> tuple[list[list[float]], StackRunner]:
        runner = StackRunner(key, on, layout=layout, techniques=techniques_of(settings))
        lanes = [tuple((fold, 100 + i + 50 * fold) for fold in range(folds)) for i in range(len(settings))]
        runs = [Run(i, setting, lanes[i], how) for i, setting in enumerate(settings)]
        runner.add(runs)
        while runner.wanted_lanes:
            for run in runner.epoch():
                # Some end early, so that lanes move from block to block.
                if run.ending or (run.epoch == 3 and run.key % 3):
                    runner.remove(run)
        return [run.curve["loss"] for run in runs], runner

    eager, _ = curves(Layout())
    workshop, threads = Workshop(tmp_path), Threads(2)
    when = {"update": 2, "evaluation": 3}
    compiled, runner = curves(Layout(4, workshop=workshop, threads=threads, taken_over=when))  # type: ignore[arg-type]
    assert runner.taken_over == when
    assert len(list(tmp_path.glob("*.so"))) == 2
    for ours, reference in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=5e-4, atol=5e-5)
    again, runner = curves(Layout(4, workshop=workshop, threads=threads))
    assert runner.taken_over == {"update": 0, "evaluation": 0}
    for ours, reference in zip(again, eager, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=5e-4, atol=5e-5)
    workshop.close()
    threads.close()


def test_lanes_move_between_blocks_and_keep_all_they_have() -> None:
    """Of twelve lanes in three blocks four are left: one thread needs only one block for them."""
    settings = [recipe(averaging="ema", dropout=0.1 * i) for i in range(12)]
    on, how = data(), protocol(epochs=6)
    key = StackKey.of(settings[0], on.inputs, on.outputs)

    def curves(layout: Layout) -> tuple[list[list[float]], list[int], list[dict[str, Tensor]]]:
        runner = StackRunner(key, on, layout=layout)
        runs = [Run(i, setting, ((0, i),), how) for i, setting in enumerate(settings)]
        runner.add(runs)
        blocks = []
        for _ in range(5):
            for run in runner.epoch():
                if run.epoch == 2 and run.key % 3:
                    runner.remove(run)
            blocks.append(len(runner.blocks))
        return [run.curve["loss"] for run in runs], blocks, [runner.best_weights(run)[0] for run in runs[::3]]

    together, _, best = curves(Layout())
    apart, blocks, moved = curves(Layout(4))
    assert blocks == [3, 3, 1, 1, 1]
    for ours, reference in zip(apart, together, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5)
    for weights, expected in zip(moved, best, strict=True):
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


def test_a_program_writes_into_its_arguments_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclass
    class Pair:
        mean: torch.Tensor
        count: torch.Tensor

    def learn(pair: Pair, x: torch.Tensor) -> None:
        pair.count.add_(1)
        pair.mean.add_((x - pair.mean) / pair.count)

    def pair() -> Pair:
        return Pair(torch.zeros(3, 4), torch.zeros(3, 1))

    path = tmp_path / "learn.so"
    assert opened(path) is None
    compile_function(learn, [pair(), torch.zeros(3, 4)], path)
    program, found = opened(path), pair()
    assert program is not None
    steps = torch.arange(4.0)[:, None, None].expand(4, 3, 4).contiguous()
    program.run([found.mean, found.count], [steps], 3)
    torch.testing.assert_close(found.mean, torch.ones(3, 4))
    torch.testing.assert_close(found.count, torch.full((3, 1), 3.0))
    program.run([found.mean, found.count], [steps[3:]])
    torch.testing.assert_close(found.mean, torch.full((3, 4), 1.5))
    monkeypatch.setattr(programs, "KEPT", 1)
    os.utime(path, (0, 0))  # not used for the longest time
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"broken")
    tidy(tmp_path)
    assert [*tmp_path.glob("*.so")] == [broken]
    assert opened(broken) is None
    assert not broken.exists(), "it is compiled again"
    assert "can't be loaded" in caplog.text


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program, and the driver beside it."""

    def add(x: torch.Tensor, y: torch.Tensor) -> None:
        x.add_(y)

    path = tmp_path_factory.mktemp("programs") / "add.so"
    compile_function(add, [torch.zeros(3), torch.zeros(3)], path)
    assert opened(path) is not None
    assert not [*path.parent.glob("*.part")]
    return path


@pytest.mark.costly
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_torn_libraries_count_as_not_there(tmp_path: Path, added: Path, share: float) -> None:
    """To load one whose end is missing would end the process."""
    (driver,) = added.parent.glob("driver-*.lib")
    for whole in (added, driver):
        torn = tmp_path / "torn" / whole.name
        torn.parent.mkdir(exist_ok=True)
        torn.write_bytes(whole.read_bytes()[: round(share * whole.stat().st_size)])
    code = "import sys, pathlib; from workers.stack.programs import opened; print(opened(pathlib.Path(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "torn" / "add.so")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr
    (made,) = (tmp_path / "torn").glob("driver-*.lib")
    assert made.stat().st_size == driver.stat().st_size, "the driver is made again"


def test_a_program_that_computes_something_else_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong:
        path = Path("wrong.so")

        def run(self, fixed: list[Tensor], stepped: list[Tensor], times: int) -> None:
            fixed[0].add_(1.0)

    on, setting = data(), recipe()
    stack, other = (Stack(StackKey.of(setting, on.inputs, on.outputs), on) for _ in range(2))
    for each in (stack, other):
        each.resize([], 2)
        for lane in range(2):
            each.load(lane, setting, seed=lane)
    stack.use("update", Wrong())  # type: ignore[arg-type]
    rates = np.full((2, stack.updates), 1e-3, dtype=np.float32)
    for _ in range(2):
        torch.testing.assert_close(stack.train_epoch(rates), other.train_epoch(rates), rtol=0.0, atol=0.0)
    assert len([record for record in caplog.records if "is wrong on this machine" in record.message]) == 1


@pytest.mark.costly
def test_what_can_not_be_compiled_is_trained_eagerly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    workshop, on, setting = Workshop(tmp_path / "file" / "programs"), data(), recipe()
    runner = StackRunner(StackKey.of(setting, on.inputs, on.outputs), on)
    runner.add([Run(0, setting, ((0, 1),), protocol(epochs=2))])
    runner.epoch()
    blueprint = runner.blocks[0].stack.blueprint
    with caplog.at_level(logging.WARNING):
        assert workshop.find(blueprint, "update", wait=True) is None
        assert workshop.find(blueprint, "update", wait=True) is None
    workshop.close()
    assert len([record for record in caplog.records if "can't be compiled" in record.message]) == 1


def test_nothing_is_compiled_where_it_does_not_pay(tmp_path: Path) -> None:
    workshop, on = Workshop(tmp_path), data()
    blueprint = Stack(StackKey.of(recipe(), on.inputs, on.outputs), on).blueprint
    assert workshop.find(blueprint, "update", build=False) is None
    assert workshop._thread is None


def test_a_product_that_is_used_transposed_is_computed_so() -> None:
    """As the gradient of a layer's weights is; one that others see as it is stays."""

    def products(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.bmm(b, b.transpose(1, 2))
        return torch.bmm(a.transpose(1, 2), b).transpose(1, 2).reshape(2, -1), seen.transpose(1, 2) + seen

    a, b = torch.randn(2, 3, 40), torch.randn(2, 3, 50)
    graph = make_fx(products)(a, b)
    turn_products(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    for ours, reference in zip(graph(a, b), products(a, b), strict=True):
        torch.testing.assert_close(ours, reference)
    made = {node.name: node for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default)}
    assert len(made) == 2
    transposed = [node for node in made.values() if any("transpose" in user.name for user in node.users)]
    assert len(transposed) == 1, "that which is also seen as it is"


def test_without_a_compiler_stacks_stay_eager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    programs.compiler.cache_clear()
    on = data()
    blueprint = Stack(StackKey.of(recipe(), on.inputs, on.outputs), on).blueprint
    for _ in range(2):
        assert Workshop(tmp_path).find(blueprint, "update", wait=True) is None
    programs.compiler.cache_clear()
    programs._driver.cache_clear()
    assert len([record for record in caplog.records if "no C++ compiler" in record.message]) == 1


def test_occupancy_counts_idle_lanes() -> None:
    on, how = data(), protocol(epochs=2)
    runner = StackRunner(StackKey.of(recipe(), on.inputs, on.outputs), on)
    runner.add([Run(i, recipe(), ((0, i),), how) for i in range(3)])
    runner.epoch()
    assert (runner.lane_epochs, runner.computed_lane_epochs) == (3, 3)


def test_mish_of_a_program_is_torch_s() -> None:
    """And its derivative, against float64; both end at infinity and at NaN as torch's do."""
    aten = torch.ops.aten
    x = torch.cat([torch.linspace(-120.0, 120.0, 20_001), torch.linspace(-1e-3, 1e-3, 101), torch.tensor([1e4, -1e4])])
    exact = x.double().requires_grad_()
    expected = torch.nn.functional.mish(exact)
    expected.sum().backward()  # type: ignore[no-untyped-call]
    found = DECOMPOSITIONS[aten.mish.default](x)
    slope = DECOMPOSITIONS[aten.mish_backward.default](torch.ones_like(x), x)
    torch.testing.assert_close(found, expected.detach().float(), rtol=2e-6, atol=1e-7)
    assert exact.grad is not None
    torch.testing.assert_close(slope, exact.grad.float(), rtol=2e-6, atol=2e-6)
    ends = torch.tensor([torch.nan, torch.inf, -torch.inf])
    torch.testing.assert_close(DECOMPOSITIONS[aten.mish.default](ends), torch.nn.functional.mish(ends), equal_nan=True)
