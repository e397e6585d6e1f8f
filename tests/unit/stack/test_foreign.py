"""Modules of the users' own in a stack: a lane is its trial alone, and both are the module in plain PyTorch."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mynets.good
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from service.errors import TrialError
from service.spec import Recipe
from tests.unit.stack import test_families as families
from tests.unit.stack.runs import data, protocol, runner, train
from workers.modules import published
from workers.plain.foreign import Foreign, ModuleFault
from workers.plain.layers import dropout_of
from workers.plain.network import Shape, adopt, build, initialize, load_weights, lr_factors
from workers.plain.training import Rows
from workers.plain.training import train as train_plainly
from workers.stack import programs
from workers.stack.device_data import DeviceData
from workers.stack.dropout import LaneDropout
from workers.stack.flat import FlatModel
from workers.stack.layout import Layout
from workers.stack.probe import verdict
from workers.stack.run import Run
from workers.stack.runner import StackRunner
from workers.stack.stack import Stack, StackKey
from workers.stack.workshop import Workshop

GOOD = ("ResNet", "Encoder", "Perceptron", "Tied", "FunctionalDropout", "Branches", "Heads", "small")
BAD = ("Raises", "WrongShape", "NotANumber", "NeedsWidth", "Huge", "Hungry", "Counts", "NoMomentum", "nothing")
LAYOUTS = {"ResNet": "cnn", "Encoder": "sequence", "Heads": "sequence"}


@pytest.fixture(scope="module", autouse=True)
def _allowed() -> None:
    found = published([*(f"mynets.good:{name}" for name in GOOD), *(f"mynets.bad:{name}" for name in BAD)])
    assert not [schema for schema in found if schema.error]


def on(name: str) -> DeviceData:
    return families.data(LAYOUTS[name]) if name in LAYOUTS else data()


def setting(name: str, **values: Any) -> Recipe:
    place = "bad" if name in BAD else "good"
    common: dict[str, Any] = {
        "family": "module",
        "module": f"mynets.{place}:{name}",
        "init": "own",
        "batch_size": 16,
        "lr": 0.01,
    }
    return Recipe({**common, **values})


def shape(name: str, **values: Any) -> Shape:
    where = on(name)
    return Shape.of(setting(name, **values).effective(), where.inputs, where.outputs)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("ResNet", {}),
    ("ResNet", {"args.norm": "group", "args.width": 4, "dropout_after": "conv,norm1"}),
    ("ResNet", {"replace_normalization": "layer"}),
    ("Encoder", {"args.layers": 2}),
    ("Encoder", {"replace_normalization": "batch"}),
    ("Perceptron", {"dropout_after": "first", "args.slope": 0.1}),
    ("Perceptron", {"replace_normalization": "group", "init": "orthogonal", "args.width": 32}),
    ("Tied", {}),
    ("small", {"args.bias": False}),
]


def strengths(lane: int) -> dict[str, Any]:
    """Adam would make a step of the rounding error of a bias before a normalization, whose gradient is 0."""
    own = {"dropout": 0.2 * lane, "l1": 1e-3 * lane, "weight_decay": 0.1 * lane, "lr": 0.03 + 0.02 * lane}
    return {"optimizer": "sgd", **own}


@pytest.mark.parametrize(("name", "more"), CASES, ids=str)
def test_a_lane_has_the_curve_of_its_trial_alone(name: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlatModel, "stacks", True)
    settings = [setting(name, **more, **strengths(lane)) for lane in range(3)]
    where, how = on(name), protocol(epochs=3)
    together = train(settings, [100, 101, 102], where, how)
    for lane, each in enumerate(settings):
        (alone,) = train([each], [100 + lane], where, how)
        for metric, curve in alone.curve.items():
            np.testing.assert_allclose(together[lane].curve[metric], curve, rtol=1e-3, atol=1e-4, err_msg=f"{lane} {metric}")
    assert together[0].curve["train_loss"] != together[2].curve["train_loss"]


FROZEN_BEFORE_GROUPS: tuple[str, dict[str, Any]] = ("ResNet", {"args.norm": "group", "freeze": "stem"})
"""Whose normalization has inputs without a gradient."""


@pytest.mark.parametrize(("name", "more"), [*CASES, FROZEN_BEFORE_GROUPS], ids=str)
def test_a_lanes_gradient_is_that_of_the_module(name: str, more: dict[str, Any]) -> None:
    """Dropout included: the same masks in an ordinary forward and backward pass."""
    where, wanted = on(name), setting(name, dropout=0.3, **more)
    model = FlatModel(Shape.of(wanted.effective(), where.inputs, where.outputs), where.device)
    initialize(model.template, wanted, 5)
    weights, stats = (row[None] for row in model.rows())
    rates, keys = torch.tensor([model.rates(wanted)]), torch.arange(1, model.dropouts + 1, dtype=torch.int32)[None]
    x, y = where.x[:8], where.y[:8]
    row = weights.clone().requires_grad_()
    out, _ = model.forward(row, stats, rates, keys, x[None])
    (gradient,) = torch.autograd.grad(F.cross_entropy(out[0], y), row)
    module = build(model.shape, LaneDropout)
    load_weights(module, model.state_dict(weights[0], stats[0]))
    for number, layer in enumerate(each for each in module.modules() if isinstance(each, LaneDropout)):
        layer.p = float(rates[0, number])
        layer.key.copy_(keys[0, number])
    F.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
    ours = model.state_dict(gradient[0], stats[0])
    for parameter_name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            torch.testing.assert_close(ours[parameter_name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_a_trial_is_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """One update for each epoch, so that the order of the rows does not matter; no dropout, of which numbers are drawn."""
    wanted = setting("Perceptron", batch_size=1000, weight_decay=0.1, l2=1e-3, clip_norm=1.0)
    where = data()
    (run,) = train([wanted], [7], where, protocol(epochs=5))
    network = build(Shape.of(wanted.effective(), where.inputs, where.outputs), dropout_of(wanted))
    initialize(network, wanted, 7)
    rows = Rows(where.x[where.train[0]], where.y[where.train[0]], where.x[where.valid[0]], where.y[where.valid[0]])
    plain = train_plainly(network, wanted.effective(), rows, epochs=5)
    np.testing.assert_allclose(run.curve["train_loss"], plain.losses, rtol=1e-4)


def test_initial_weights_are_those_that_the_module_gives_itself() -> None:
    network = build(shape("Encoder"), LaneDropout)
    initialize(network, {}, 11)
    torch.manual_seed(11)
    theirs = mynets.good.Encoder((5, 3), 2)
    assert isinstance(network, Foreign)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(network.net.state_dict()[name], value, rtol=0, atol=0)
    before = torch.random.get_rng_state()
    initialize(network, {}, 12)
    assert torch.equal(before, torch.random.get_rng_state())


def test_dropout_is_put_into_the_module() -> None:
    """Its own layer, called at two places, drops different units at each; the rate of its code does not count."""
    model = FlatModel(shape("Perceptron", dropout_after="first,sec*"), torch.device("cpu"))
    assert model.dropouts == 4  # of the input, its own, and two put after layers
    assert model.rates(setting("Perceptron", dropout=(0.1, 0.2, 0.3), input_dropout=0.4)) == [0.4, 0.1, 0.2, 0.3]
    layer = LaneDropout("dropout")
    layer.rate.fill_(0.5)
    layer.calls = 0
    first, second = layer(torch.ones(1000)), layer(torch.ones(1000))
    assert 0.4 < float((first != second).float().mean()) < 0.6
    layer.calls = 0
    assert torch.equal(layer(torch.ones(1000)), first)
    without = build(shape("Perceptron"))
    assert not [each for each in without.modules() if isinstance(each, nn.Dropout | LaneDropout)]


@pytest.mark.parametrize("name", ["ResNet", "Encoder", "Perceptron"])
@pytest.mark.parametrize("word", ["none", "batch", "layer", "group"])
def test_normalization_is_replaced(name: str, word: str) -> None:
    network = build(shape(name, replace_normalization=word))
    found = [type(layer).__name__ for layer in network.modules() if "Norm" in type(layer).__name__]
    assert set(found) == {"none": set(), "batch": {"AnyBatchNorm"}}.get(word, {"GroupNorm"})
    initialize(network, {}, 0)
    out = network(on(name).x[:8])
    assert out.shape == (8, on(name).outputs)
    assert bool(out.isfinite().all())


REASONS = {
    "ResNet": "convolutions are fastest one network at a time on a CPU",
    "FunctionalDropout": "RuntimeError: vmap: called random operation",
    "Branches": ".item()",
}


@pytest.mark.parametrize("name", [name for name in GOOD if name not in ("Heads", "small")])
def test_what_can_be_stacked_is_found_by_trying(name: str) -> None:
    found = verdict(shape(name), on(name))
    assert found.fault is None
    assert (found.separate is None) == (name not in REASONS), found.separate
    assert REASONS.get(name, "") in (found.separate or "")
    assert found.traceable == (name not in ("FunctionalDropout", "Branches"))
    settings = [setting(name, lr=0.01 * lane) for lane in (1, 2, 3)]
    runs = train(settings, [1, 2, 3], on(name), protocol(epochs=2))
    assert [run.ending for run in runs] == ["epochs"] * 3


@pytest.mark.costly
@pytest.mark.parametrize(("name", "lanes"), [("ResNet", 1), ("Perceptron", 2)])
def test_programs_compute_what_the_module_does(
    name: str, lanes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process that compiles them imports it. Perceptron calls its dropout twice."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    settings, where = [setting(name, dropout=0.1 * lane) for lane in (1, 2)], on(name)
    key = StackKey.of(settings[0], where.inputs, where.outputs)

    def curves(layout: Layout) -> tuple[list[list[float]], StackRunner]:
        runner = StackRunner(key, where, layout=layout)
        runs = [Run(place, own, ((0, place),), protocol(epochs=4)) for place, own in enumerate(settings)]
        runner.add(runs)
        while any(not run.ending for run in runs):
            runner.epoch()
        return [run.curve["loss"] for run in runs], runner

    eager, _ = curves(Layout())
    workshop = Workshop(tmp_path)
    compiled, runner = curves(Layout(lanes, workshop=workshop, taken_over={"update": 0, "evaluation": 0}))
    workshop.close()
    assert runner.taken_over == {"update": 0, "evaluation": 0}
    assert not caplog.records, "neither is wrong"
    for ours, reference in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.costly
def test_a_program_of_a_changed_file_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = (
        "import torch\n\n\nclass Net(torch.nn.Linear):\n"
        "    def __init__(self, inputs, outputs):\n        super().__init__(inputs[0], outputs)\n"
    )
    file = tmp_path / "changing.py"
    file.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    assert not published(["changing:Net"])[0].error
    key = StackKey.of(Recipe({"family": "module", "module": "changing:Net", "init": "own", "batch_size": 16}), (6,), 3)
    blueprint = Stack(key, data()).blueprint
    programs.path_of(blueprint, "evaluation", tmp_path)  # the worker has imported it as it was
    file.write_text(source + "\n\nNEW = True\n")
    workshop = Workshop(tmp_path / "programs")
    assert workshop.find(blueprint, "evaluation", wait=True) is None
    workshop.close()
    assert "the module's file has changed" in caplog.text


def test_a_program_is_of_the_package_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "layered"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "width.py").write_text("WIDTH = 4\n")
    (package / "net.py").write_text(
        "import torch\nfrom layered.width import WIDTH\n\n\ndef net(inputs, outputs):\n"
        "    return torch.nn.Sequential(torch.nn.Linear(inputs[0], WIDTH), torch.nn.Linear(WIDTH, outputs))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not published(["layered.net:net"])[0].error
    key = StackKey.of(Recipe({"family": "module", "module": "layered.net:net", "init": "own", "batch_size": 16}), (6,), 3)
    blueprint = Stack(key, data()).blueprint
    first = programs.path_of(blueprint, "update", tmp_path)
    assert programs.path_of(blueprint, "update", tmp_path) == first
    (package / "width.py").write_text("WIDTH = 8\n")
    assert programs.path_of(blueprint, "update", tmp_path) == first, "this process has the old one"
    programs._files_of.cache_clear()
    assert programs.path_of(blueprint, "update", tmp_path) != first


FAULTS = {
    "Raises": "mynets.bad:Raises raised in forward: ValueError: these rows are not mine",
    "WrongShape": "mynets.bad:WrongShape returns (16, 2) for 16 examples, not (16, 3) (rows, outputs)",
    "NeedsWidth": "mynets.bad:NeedsWidth can't be built with its defaults: TypeError: ",
    "Huge": "mynets.bad:Huge has 25,601,760,003 parameters, which take 476.9 GiB in training; this worker has ",
    "Counts": "mynets.bad:Counts changes its buffer net.seen, which is not of float32",
    "NoMomentum": "mynets.bad:NoMomentum: batch has no momentum",
    "nothing": "mynets.bad:nothing builds a str, not a torch.nn.Module",
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_can_not_be_trained_is_told_in_a_sentence(name: str) -> None:
    found = verdict(shape(name), on(name))
    assert found.fault is not None
    assert found.fault.startswith(FAULTS[name])
    with pytest.raises(TrialError, match=name):
        train([setting(name)], [1], on(name), protocol())


def test_not_a_number_ends_the_trial() -> None:
    (run,) = train([setting("NotANumber")], [1], on("NotANumber"), protocol())
    assert run.ending == "not_finite"


def test_some_arguments_may_not_fit() -> None:
    assert verdict(shape("Heads", **{"args.heads": 3}), on("Heads")).fault is not None
    assert verdict(shape("Heads", **{"args.heads": 4}), on("Heads")).fault is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"dropout_after": "frist"}, "has no layer 'frist'; it has first, norm, drop, second, out"),
        ({"dropout_layers": 2}, "has 1 dropout layers, not 2 as model.dropout_layers says"),
    ],
)
def test_layers_that_are_not_there(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ModuleFault, match=message):
        build(shape("Perceptron", **more))


def test_the_last_layer_is_the_head() -> None:
    assert build(shape("ResNet")).head == "net.fc."
    model = FlatModel(shape("Perceptron"), torch.device("cpu"))
    marked = {name: bool(value.any()) for name, value in model.state_dict(model.body_mask(), torch.zeros(0)).items()}
    assert [name for name, body in marked.items() if not body] == ["net.out.weight", "net.out.bias"]


def test_equal_settings_share_a_stack_and_arguments_do_not() -> None:
    where = data()
    keys = [
        StackKey.of(setting("Perceptron", **values), where.inputs, where.outputs)
        for values in ({"lr": 0.1}, {"dropout": 0.5}, {"args.width": 4}, {"replace_normalization": "none"})
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


# --- fine-tuning ---------------------------------------------------------------------------------------------------


def tuned(name: str, **changes: Any) -> DeviceData:
    """Data with weights of a file: those of another seed, by the module's own names."""
    theirs = build(shape(name))
    initialize(theirs, {}, 99)
    assert isinstance(theirs, Foreign)
    start = {each: value.detach().clone() for each, value in theirs.net.state_dict().items() if value.dtype == torch.float32}
    return replace(on(name), start={**start, **changes})


def test_trials_begin_with_the_weights_of_a_file() -> None:
    where = tuned("ResNet", **{"fc.weight": torch.zeros(7, 8), "fc.bias": torch.zeros(7), "another": torch.zeros(1)})
    wanted = setting("ResNet", fine_tune="all")
    stack = Stack(StackKey.of(wanted, where.inputs, where.outputs), where)
    stack.resize([], 1)
    stack.load(0, wanted, seed=3)
    found = stack.model.state_dict(stack.state.weights[0], stack.state.stats[0])
    assert where.start is not None
    torch.testing.assert_close(found["net.stem.weight"], where.start["stem.weight"])
    fresh = build(shape("ResNet"))
    initialize(fresh, {}, 3)
    assert isinstance(fresh, Foreign)
    torch.testing.assert_close(found["net.fc.weight"], fresh.net.get_parameter("fc.weight").detach())
    stack.load(0, setting("ResNet", fine_tune="off"), seed=3)
    scratch = stack.model.state_dict(stack.state.weights[0], stack.state.stats[0])
    torch.testing.assert_close(scratch["net.stem.weight"], fresh.net.get_parameter("stem.weight").detach())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2), "model.weights or model.start_from: stem.weight is of the shape (2,), not (8, 2, 3, 3)"),
        (None, "model.weights or model.start_from: stem.weight is missing"),
    ],
)
def test_weights_of_another_network_are_a_fault(value: Any, message: str) -> None:
    where = tuned("ResNet", **{"stem.weight": value})
    assert where.start is not None
    start = {name: each for name, each in where.start.items() if each is not None}
    assert verdict(shape("ResNet"), replace(where, start=start)).fault == message


@pytest.mark.parametrize("more", [{"l2_sp": 0.3}, {"l2_sp": 0.1, "layer_lr_decay": 0.5}, {"fine_tune": "head"}], ids=str)
def test_fine_tuning_is_the_plain_loop(more: dict[str, Any]) -> None:
    wanted = setting("Perceptron", **{"fine_tune": "all", "batch_size": 1000, "optimizer": "sgd", "lr": 0.1, **more})
    where = tuned("Perceptron")
    (run,) = train([wanted], [7], where, protocol(epochs=6))
    network = build(Shape.of(wanted.effective(), where.inputs, where.outputs), dropout_of(wanted))
    initialize(network, wanted, 7)
    assert where.start is not None
    adopt(network, where.start)
    rows = Rows(where.x[where.train[0]], where.y[where.train[0]], where.x[where.valid[0]], where.y[where.valid[0]])
    plain = train_plainly(network, wanted.effective(), rows, epochs=6)
    np.testing.assert_allclose(run.curve["train_loss"], plain.losses, rtol=1e-4)
    usual = setting("Perceptron", **{**dict(wanted), "l2_sp": 0.0, "layer_lr_decay": 1.0, "fine_tune": "all"})
    (other,) = train([usual], [7], where, protocol(epochs=6))
    assert abs(other.curve["train_loss"][-1] - run.curve["train_loss"][-1]) > 1e-3


def test_a_fine_tuned_lane_does_not_depend_on_its_neighbours() -> None:
    where, how = tuned("Perceptron"), protocol(epochs=3)
    settings = [setting("Perceptron", fine_tune="all", l2_sp=0.2 * lane, optimizer="sgd") for lane in range(3)]
    together = train(settings, [1, 2, 3], where, how)
    for lane, own in enumerate(settings):
        (alone,) = train([own], [1 + lane], where, how)
        np.testing.assert_allclose(together[lane].curve["loss"], alone.curve["loss"], rtol=1e-3, atol=1e-4)


def test_l2_sp_draws_the_body_to_its_beginning() -> None:
    where = tuned("Perceptron")
    distances = []
    for strength in (0.0, 5.0):
        wanted = setting("Perceptron", fine_tune="all", l2_sp=strength, optimizer="sgd", lr=0.1)
        stack = runner(wanted, where)
        run = Run(0, wanted, ((0, 1),), protocol(epochs=20))
        stack.add([run])
        while not run.ending:
            stack.epoch()
        (found,) = stack.best_weights(run)
        assert where.start is not None
        distances.append(float((found["net.second.weight"] - where.start["second.weight"]).norm()))
    assert distances[1] < 0.3 * distances[0]


def test_frozen_layers_stay_as_they_are() -> None:
    where = tuned("ResNet")
    wanted = setting("ResNet", fine_tune="all", freeze="stem,norm1", l1=0.1, weight_decay=1.0)
    stack = runner(wanted, where)
    run = Run(0, wanted, ((0, 1),), protocol(epochs=2))
    stack.add([run])
    while not run.ending:
        stack.epoch()
    (found,) = stack.best_weights(run)
    assert where.start is not None
    for name, value in where.start.items():
        same = torch.equal(found[f"net.{name}"], value)
        assert same == name.startswith(("stem", "norm1")), name


def test_early_layers_learn_more_slowly() -> None:
    factors = lr_factors(build(shape("Encoder", layer_lr_decay=0.5, **{"args.layers": 2})))
    assert factors["net.head.weight"] == 1.0
    assert factors["net.encoder.layers.1.linear1.weight"] == 0.5
    assert factors["net.encoder.layers.0.linear1.weight"] == 0.25
    assert factors["net.embed.weight"] == 0.125
    blocks = lr_factors(build(shape("small", layer_lr_decay=0.5)))
    assert sorted(set(blocks.values())) == [0.5, 1.0]
