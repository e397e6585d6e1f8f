"""Image and sequence models in a stack: a lane of several is its trial alone; a trial alone is plain PyTorch."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from service.search import Search, recipe
from service.spec import Recipe, StudySpec
from service.spec.groups.normalization import NORMALIZATIONS
from service.spec.study import SETTINGS
from tests.unit.stack.runs import protocol, train
from workers.data import Fold, TargetScale
from workers.plain.network import Shape, build, initialize
from workers.planning.plan import train_once
from workers.stack.device_data import DeviceData
from workers.stack.dropout import LaneDropout
from workers.stack.flat import FlatModel
from workers.stack.gradient import Gradient, update_keys
from workers.stack.lanes import LaneState, blank_columns, load_columns
from workers.stack.memory import MemoryNeed, peak_bytes
from workers.stack.stack import Stack, StackKey
from workers.stack.techniques import Batch, techniques_of
from workers.stack.techniques.mixing import partner
from workers.stack.update import Update

SHAPES = {"cnn": (2, 7, 6), "sequence": (5, 3)}
CASES = [("cnn", word, "gru") for word in NORMALIZATIONS["cnn"]] + [
    ("sequence", word, cell) for word in NORMALIZATIONS["sequence"] for cell in ("gru", "transformer")
]


def data(family: str, rows: int = 40, valid: int = 24) -> DeviceData:
    """Two classes that differ in their mean; series are padded."""
    rng = np.random.default_rng(0)
    y = np.arange(rows + valid) % 2
    x = rng.normal(size=(rows + valid, *SHAPES[family])) + 0.7 * y.reshape(-1, *(1 for _ in SHAPES[family]))
    x = x.astype(np.float32)
    layout = "image" if family == "cnn" else "sequence"
    if family == "sequence":
        x[np.arange(SHAPES[family][0]) >= rng.integers(1, 6, size=(rows + valid, 1))] = np.nan
    fold = Fold(x[:rows], y[:rows], x[rows:], y[rows:], TargetScale(), {"kind": "array", "layout": layout})
    return DeviceData.of([fold], task="classification", outputs=2, device=torch.device("cpu"))


def setting(family: str, lane: int = 0, **more: Any) -> Recipe:
    values: dict[str, Any] = {
        "family": family,
        "width": 8,
        "depth": 2,
        "batch_size": 16,
        "normalization_groups": 2,
        "heads": 2,
    }
    own: dict[str, Any] = {
        "lr": 0.004 * (lane + 1),
        "dropout": (0.1 * lane, 0.2),
        "input_dropout": 0.05 * lane,
        "head_dropout": 0.1 * lane,
        "l1": 1e-3 * lane,
        "weight_decay": 0.3 * (lane % 2),
        "init": "he" if lane % 2 else "xavier",
    }
    return Recipe({**values, **own, **more})


@pytest.mark.parametrize(("family", "normalization", "cell"), CASES)
def test_a_lane_has_the_curve_of_its_trial_alone(
    family: str, normalization: str, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FlatModel, "stacks", True)
    settings = [setting(family, lane, normalization=normalization, cell=cell) for lane in range(3)]
    on, how = data(family), protocol(epochs=3)
    together = train(settings, [100, 101, 102], on, how)
    for lane, own in enumerate(settings):
        (alone,) = train([own], [100 + lane], on, how)
        for name, curve in alone.curve.items():
            np.testing.assert_allclose(together[lane].curve[name], curve, rtol=1e-3, atol=1e-4, err_msg=f"{lane} {name}")


@pytest.mark.parametrize(("family", "preset"), [("cnn", "images"), ("sequence", "sequences")])
def test_what_a_familys_space_proposes_trains(family: str, preset: str) -> None:
    parts = {
        "data": {"dataset": "wine"},
        "model": {"family": family, "width": 4, "depth": 2},
        "space": {"preset": preset, "batch_size": 16},
        "sampler": "random",
    }
    spec = StudySpec.model_validate(parts).resolved("classification")
    proposed = [recipe(spec, params) for params, _ in Search(spec, seed=3).propose(12)]
    searched = {name for name in spec.searched if SETTINGS[name].regularizer}
    assert {name for one in proposed for name in one.regularizers()} == searched, "each is on in some trial"
    on, how = data(family), protocol(epochs=2)
    for seed, one in enumerate(proposed):
        (run,) = train([one], [seed], on, how)
        assert run.ending == "epochs"


def test_augmentation_is_a_lanes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes with and without it, together and alone; and it makes a difference."""
    monkeypatch.setattr(FlatModel, "stacks", True)
    names = ("rotation", "shift", "shear", "zoom", "horizontal_flip", "vertical_flip", "cutout")
    strengths: list[dict[str, Any]] = [dict.fromkeys(names, 0.4), {}, {"cutout": 0.5, "rotation": 40.0}]
    settings = [setting("cnn", **own) for own in strengths]
    on, how = data("cnn"), protocol(epochs=3)
    together = train(settings, [7, 7, 7], on, how)
    for lane, own in enumerate(settings):
        (alone,) = train([own], [7], on, how)
        np.testing.assert_allclose(together[lane].curve["loss"], alone.curve["loss"], rtol=1e-3, atol=1e-4)
    losses = [run.curve["train_loss"][-1] for run in together]
    assert len({round(loss, 3) for loss in losses}) == 3


def test_convolutions_on_a_cpu_are_trained_one_by_one_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [setting("cnn", lane, normalization="batch") for lane in range(3)]
    on, how = data("cnn"), protocol(epochs=2)
    assert not Stack(StackKey.of(settings[0], on.inputs, on.outputs), on).model.stacks
    one_by_one = train(settings, [1, 2, 3], on, how)
    monkeypatch.setattr(FlatModel, "stacks", True)
    stacked = train(settings, [1, 2, 3], on, how)
    for a, b in zip(one_by_one, stacked, strict=True):
        np.testing.assert_allclose(a.curve["loss"], b.curve["loss"], rtol=1e-3, atol=1e-4)


NETWORKS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("cnn", {"shortcuts": shortcuts, "downsampling": downsampling, "blocks": 2 if shortcuts else 1})
        for shortcuts in (True, False)
        for downsampling in ("strided", "max", "average")
    ),
    ("cnn", {"pooling": "max"}),
    *(("sequence", {"cell": cell, "pooling": how}) for cell in ("gru", "transformer") for how in ("mean", "max", "last")),
]


@pytest.mark.parametrize(("family", "network"), NETWORKS, ids=str)
def test_a_stacks_gradient_is_that_of_plain_pytorch(family: str, network: dict[str, Any]) -> None:
    """Every shape of network, dropout included: the update's gradient rows against ordinary modules."""
    recipe = setting(family, 2, normalization="layer", **network)
    on = data(family)
    model = FlatModel(Shape.of(recipe.effective(), on.inputs, on.outputs), on.device)
    k, layers = 2, model.dropouts
    states = []
    for lane in range(k):
        initialize(model.module, recipe, lane)
        states.append(model.rows())
    weights, stats = torch.stack([row for row, _ in states]), torch.stack([row for _, row in states])
    columns = blank_columns(k, layers, on.device)
    columns["dropout"] = torch.tensor([model.rates(recipe)] * k)
    keys = update_keys(torch.arange(k, dtype=torch.int32), torch.zeros(1, k, dtype=torch.int32), layers)[0]
    x, y = on.x[: 2 * 8].view(k, 8, *on.inputs), on.y[:16].view(k, 8)
    state = LaneState.zeros(
        k, parameters=weights.shape[1], statistics=stats.shape[1], moments=2, averaging=False, device=on.device
    )
    state.weights, state.stats = weights, stats
    model.module.train()
    gradient, (losses, _) = Update(model, "adamw", "classification", frozenset()).gradient(state, columns, keys, x, y)
    for lane in range(k):
        module = build(model.shape, LaneDropout)
        module.load_state_dict(model.state_dict(weights[lane], stats[lane]))
        dropouts = [each for each in module.modules() if isinstance(each, LaneDropout)]
        for each, rate, key in zip(dropouts, model.rates(recipe), keys[lane], strict=False):
            each.rate.fill_(rate)
            each.key.copy_(key)
        loss = F.cross_entropy(module(x[lane]), y[lane])
        loss.backward()  # type: ignore[no-untyped-call]
        assert losses[lane].item() == pytest.approx(loss.item(), rel=1e-5)
        ours = model.state_dict(gradient[lane], stats[lane])
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("family", "normalization", "cell"), CASES)
def test_every_family_learns(family: str, normalization: str, cell: str) -> None:
    """The median of five seeds; chance is ln 2 = 0.69."""
    own = setting(family, 1, normalization=normalization, cell=cell, lr=0.02, dropout=0.0, l1=0.0)
    runs = train([own] * 5, list(range(5)), data(family), protocol(epochs=8 if family == "cnn" else 30))
    assert median(run.curve["train_loss"][-1] for run in runs) < 0.55


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_images_and_labels_are_mixed_by_the_patch(mixup: float) -> None:
    """Under cutmix the loss is that of plain PyTorch on the patched images; with mixup beside it, a coin chooses."""
    recipe = setting("cnn", 2, cutmix=1.0, mixup=mixup)
    on = data("cnn")
    model = FlatModel(Shape.of(recipe.effective(), on.inputs, on.outputs), on.device)
    initialize(model.module, recipe, 0)
    row, stats = model.rows()
    columns = blank_columns(1, model.dropouts, on.device)
    load_columns(columns, 0, recipe, rates=model.rates(recipe), seed=3)
    state = LaneState.zeros(1, parameters=len(row), statistics=len(stats), moments=2, averaging=False, device=on.device)
    state.weights, state.stats = row[None], stats[None]
    gradient = Gradient(model, "classification", techniques_of([recipe]), micro_batches=1, mixed_precision=False)
    x, y = on.x[None, :8], on.y[None, :8]
    model.module.train()
    patched = 0
    for update in range(12):
        number = torch.full((1, 1), update, dtype=torch.int32)
        keys = update_keys(columns["seed"], number, model.dropouts)[0]
        _, (loss, _) = gradient(state, columns, keys, x, y)
        batch = Batch(x, y, columns, keys)
        gradient.change(batch)
        seen, shares = batch.x, batch.share
        assert shares is not None
        share, pixels = shares.item(), (seen == x).all(2).float()
        is_patch = bool(((seen == x) | (seen == partner(x))).all())
        patched += is_patch
        if is_patch:
            torch.testing.assert_close(pixels.mean((1, 2, 3)), shares)
        else:
            torch.testing.assert_close(seen, share * x + (1 - share) * partner(x))
        out = model.forward(state.weights, state.stats, columns["dropout"], keys, seen)[0][0]
        expected = share * F.cross_entropy(out, y[0]) + (1 - share) * F.cross_entropy(out, y[0].roll(1))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert patched == 12 if mixup == 0.0 else 2 < patched < 10


@pytest.mark.parametrize(("family", "cell"), [("cnn", "gru"), ("sequence", "gru"), ("sequence", "transformer")])
def test_memory_is_foretold_from_two_small_stacks(family: str, cell: str) -> None:
    own, on = setting(family, 1, cell=cell, width=16, normalization="layer"), data(family, rows=200)
    key = StackKey.of(own, on.inputs, on.outputs)
    need = MemoryNeed.measured(lambda lanes: train_once(key, own, on, lanes), on.device)
    for lanes in (2, 6):
        peak = peak_bytes(partial(train_once, key, own, on, lanes), on.device)
        assert need.bytes(lanes) == pytest.approx(peak, rel=0.2)
