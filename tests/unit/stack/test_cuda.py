"""On CUDA: a stack is that of the CPU, a lane does not see its neighbours, and what is captured is what runs eagerly."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.settings import Settings
from service.spec import Recipe, StudySpec
from service.store import open_store
from tests.unit.stack import test_families as families
from tests.unit.stack.runs import data, protocol, recipe
from workers.liveness import Stop
from workers.planning.plan import train_once
from workers.planning.process import set_up
from workers.stack.device_data import DeviceData
from workers.stack.layout import Layout
from workers.stack.memory import MemoryNeed, peak_bytes
from workers.stack.run import Run
from workers.stack.runner import StackRunner
from workers.stack.stack import StackKey
from workers.stack.techniques import techniques_of
from workers.worker import Worker

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

KINDS: dict[str, list[dict[str, Any]]] = {
    "penalties": [{"l1": 1e-3}, {"l2": 1e-2, "dropout": 0.3}, {"weight_decay": 1.0, "max_norm": 0.5}, {"proximal_l1": 0.1}],
    "batch norm": [{"normalization": "batch", "dropout": rate} for rate in (0.0, 0.2, 0.5)],
    "layer norm": [{"normalization": "layer", "label_smoothing": 0.1, "mixup": 0.4}, {"normalization": "layer"}],
    "weight norm": [{"normalization": "weight", "clip_norm": 0.5}, {"normalization": "weight", "input_noise": 0.1}],
    "averages": [{"averaging": "ema"}, {"averaging": "swa"}, {}],
    "sgd": [{"optimizer": "sgd", "momentum": 0.9, "nesterov": True}, {"optimizer": "sgd", "momentum": 0.5}],
    **{name: [{"optimizer": name, "l1": 1e-3}, {"optimizer": name}] for name in ("rmsprop", "adagrad", "adadelta")},
}


AUGMENTED = {"rotation": 20.0, "shift": 0.1, "horizontal_flip": 0.5, "cutout": 0.3}
OTHER_KINDS: list[tuple[str, list[dict[str, Any]]]] = [
    ("cnn", [{"normalization": "batch"}, {"normalization": "batch", **AUGMENTED}]),
    ("cnn", [{"normalization": "layer", "cutmix": 1.0}, {"normalization": "layer"}]),
    ("sequence", [{"cell": "gru"}, {"cell": "gru", "mixup": 0.4}]),
    ("sequence", [{"cell": "transformer", "normalization": "layer"}] * 2),
]


@pytest.fixture(autouse=True, scope="module")
def _as_in_a_worker() -> None:
    set_up()


def there(on: DeviceData) -> DeviceData:
    """The same data on the CUDA device."""
    moved: dict[str, Any] = {
        field.name: value.cuda() for field in fields(on) if isinstance(value := getattr(on, field.name), torch.Tensor)
    }
    return replace(on, **moved)


def curves(settings: list[Recipe], on: DeviceData, layout: Layout | None = None, epochs: int = 4) -> np.ndarray:
    key = StackKey.of(settings[0], on.inputs, on.outputs)
    runner = StackRunner(key, on, layout=layout, techniques=techniques_of(settings))
    runs = [Run(i, setting, ((0, 10 + i),), protocol(epochs=epochs)) for i, setting in enumerate(settings)]
    runner.add(runs)
    for _ in range(epochs):
        runner.epoch()
    return np.array([[run.curve["train_loss"], run.curve["loss"]] for run in runs])


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_stack_is_that_of_the_cpu_whether_captured_or_not(kind: str) -> None:
    settings = [recipe(**values) for values in KINDS[kind]]
    on = there(data())
    expected = curves(settings, data())
    np.testing.assert_allclose(curves(settings, on), expected, rtol=2e-3, atol=2e-4)
    captured = curves(settings, on, Layout(len(settings) + 1, graphs=True))
    np.testing.assert_allclose(captured, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(("family", "values"), OTHER_KINDS, ids=str)
def test_other_networks_are_those_of_the_cpu_whether_captured_or_not(family: str, values: list[dict[str, Any]]) -> None:
    settings = [families.setting(family, lane, **own) for lane, own in enumerate(values)]
    expected = curves(settings, families.data(family))
    on = there(families.data(family))
    for layout in (None, Layout(len(settings), graphs=True)):
        np.testing.assert_allclose(curves(settings, on, layout), expected, rtol=5e-3, atol=5e-4)


def test_a_technique_that_comes_later_is_captured_too() -> None:
    """After two epochs a lane with L1, masked inputs and averages joins the first one."""
    settings = [recipe(dropout=0.2), recipe(l1=1e-2, feature_masking=0.2, averaging="ema")]

    def trained(on: DeviceData, layout: Layout | None) -> list[list[float]]:
        runner = StackRunner(StackKey.of(settings[0], on.inputs, on.outputs), on, layout=layout)
        runs = [Run(i, each, ((0, i),), protocol(epochs=6)) for i, each in enumerate(settings)]
        for epoch in range(6):
            if epoch in (0, 2):
                runner.add([runs[epoch // 2]])
            runner.epoch()
        return [run.curve["loss"] for run in runs]

    expected = trained(data(), None)
    for layout in (None, Layout(3, graphs=True)):
        for found, own in zip(trained(there(data()), layout), expected, strict=True):
            np.testing.assert_allclose(found, own, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("graphs", [False, True])
def test_a_lane_does_not_see_its_neighbours(graphs: bool) -> None:
    settings = [recipe(dropout=0.1 * i, l1=1e-4 * i, lr=0.003 * (i + 1)) for i in range(8)]
    on = there(data())
    together = curves(settings, on, Layout(8, graphs=graphs) if graphs else None)
    for lane in (0, 5):
        run = Run(0, settings[lane], ((0, 10 + lane),), protocol(epochs=4))
        runner = StackRunner(StackKey.of(settings[lane], on.inputs, on.outputs), on)
        runner.add([run])
        for _ in range(4):
            runner.epoch()
        np.testing.assert_allclose(run.curve["loss"], together[lane][1], rtol=1e-3, atol=1e-5)


def test_captured_lanes_are_filled_again_and_end_eagerly() -> None:
    """Seven runs on four captured lanes; the last one goes on without the graph."""
    settings = [recipe(dropout=0.1 * i) for i in range(7)]
    on = there(data())

    def trained(layout: Layout | None) -> list[float]:
        runner = StackRunner(StackKey.of(settings[0], on.inputs, on.outputs), on, layout=layout)
        runs = [Run(i, each, ((0, i),), protocol(epochs=2 + 3 * (i == 6))) for i, each in enumerate(settings)]
        runner.add(runs)
        while runner.wanted_lanes:
            runner.last_call = not runner.waiting
            for run in runner.epoch():
                if run.ending:
                    runner.remove(run)
        return [run.curve["loss"][-1] for run in runs]

    np.testing.assert_allclose(trained(Layout(4, graphs=True)), trained(None), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("graphs", [False, True])
def test_shorter_arithmetic_follows_float32(precision: str, graphs: bool) -> None:
    full, short = recipe(lr=0.003), recipe(lr=0.003, precision=precision)
    on = there(data())
    layout = Layout(1, graphs=graphs) if graphs else None
    np.testing.assert_allclose(curves([short], on, layout), curves([full], on, layout), rtol=0.05)


def test_a_checkpoint_goes_from_cuda_to_the_cpu_and_back() -> None:
    setting, how = recipe(dropout=0.2, averaging="ema"), protocol(epochs=6)
    key, places = StackKey.of(setting, data().inputs, data().outputs), [there(data()), data(), there(data())]
    whole = curves([setting], there(data()), epochs=6)
    run = Run(0, setting, ((0, 10),), how)
    for on in places:
        runner = StackRunner(key, on)
        runner.add([run])
        for _ in range(2):
            runner.epoch()
        saved = runner.checkpoint(run)
        run = Run(0, setting, ((0, 10),), how)
        run.resume(saved)
    np.testing.assert_allclose(run.curve["loss"], whole[0][1], rtol=1e-3, atol=1e-5)


def test_memory_is_foretold() -> None:
    setting, on = recipe(width=256), there(data())
    key = StackKey.of(setting, on.inputs, on.outputs)
    need = MemoryNeed.measured(lambda lanes: train_once(key, setting, on, lanes), on.device)
    peak = peak_bytes(lambda: train_once(key, setting, on, 24), on.device)
    assert abs(need.bytes(24) - peak) < 0.3 * peak


@pytest.mark.parametrize("graphs", [False, True])
def test_where_memory_runs_out_half_of_the_lanes_must_do(graphs: bool) -> None:
    setting, on = recipe(width=2048), there(data())
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2 * 2**30 / torch.cuda.mem_get_info()[1]))
    try:
        layout = Layout(60, graphs=True) if graphs else None
        runner = StackRunner(StackKey.of(setting, on.inputs, on.outputs), on, layout=layout)
        runner.add([Run(i, setting, ((0, i),), protocol(epochs=1)) for i in range(60)])
        endings = []
        while runner.wanted_lanes:
            for run in runner.epoch():
                if run.ending:
                    endings.append(run.ending)
                    runner.remove(run)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert endings == ["epochs"] * 60


def test_a_whole_study(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/regsearch.db", create=True)
    raw = {"data": {"dataset": "wine"}, "budget": {"trials": 24, "epochs": 8, "finalists": 2, "seeds": 2}}
    study = store.studies.submit(StudySpec.model_validate(raw).resolved("classification"))
    worker = Worker(store, Settings(home=tmp_path, cache=tmp_path / "cache"), "cuda:0", Stop())
    while worker.turn():
        pass
    found = store.studies.get(study)
    store.close()
    assert found.state == "finished", found.reason
    assert found.counts.fail == 0
