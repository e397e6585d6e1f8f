"""What the snippet does to a batch, given the service's random numbers; its averages of weights; its weights of classes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from workers.stack.averaging import holds

from tests.unit.report.programs import program, spec
from tests.unit.stack.runs import CLASSES, FEATURES, data, recipe
from tests.unit.stack.test_families import data as images
from tests.unit.stack.test_families import setting
from workers.data.balance import class_weights
from workers.stack import augmentation

DRAWN = ("rotation", "shear", "zoom", "shift_x", "shift_y", "horizontal_flip", "vertical_flip", "cutout_x", "cutout_y")
STRENGTHS = {"rotation": 30.0, "shear": 15.0, "zoom": 0.3, "shift": 0.2}


@pytest.mark.parametrize(
    "strengths",
    [{**STRENGTHS, "horizontal_flip": 0.5, "vertical_flip": 0.3, "cutout": 0.4}, STRENGTHS, {"shift": 0.1}, {"cutout": 0.6}],
)
def test_its_augmentation_is_the_service_s(strengths: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x = images("cnn").x[:12]
    generator = torch.Generator().manual_seed(0)
    draws = {name: torch.rand(12, generator=generator) for name in DRAWN}
    monkeypatch.setattr(augmentation, "_draws", lambda keys, count: {name: each[None] for name, each in draws.items()})
    ours = augmentation.augmented(
        x[None], {name: torch.tensor([value]) for name, value in strengths.items()}, torch.zeros(1, dtype=torch.int32)
    )[0]
    augment = program(setting("cnn", **strengths), spec())["augment"]
    wanted = {*(DRAWN[:5] if set(strengths) & set(STRENGTHS) else ()), *(name for name in DRAWN if name in strengths)}
    wanted |= {"cutout_x", "cutout_y"} if "cutout" in strengths else set()
    queue = [draws[name] for name in DRAWN if name in wanted]
    monkeypatch.setattr(torch, "rand", lambda *shape, device: queue.pop(0).view(shape))
    torch.testing.assert_close(augment(x), ours, rtol=1e-4, atol=1e-5)
    assert not queue
    assert not torch.equal(ours, x)


def seen_by(values: dict[str, Any], family: str = "mlp", task: str = "classification") -> tuple[Any, ...]:
    """The network's input and the loss in one update without dropout, the batch, and the network as it was."""
    own = recipe(**values, width=4) if family == "mlp" else setting(family, **values, dropout=0.0)
    on = data(task=task) if family == "mlp" else images(family)
    names = program(own, spec(task))
    model = names["make_model"](on.x.shape[1], on.outputs)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    step: Callable[..., float] = names["train_step"]
    source = torch.optim.SGD(model.parameters(), lr=0.0)
    loss = step(model, source, on.x, on.y, 0.0)
    return seen[0], loss, on.x, on.y, model


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_it_mixes_examples_and_labels(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "betavariate", lambda a, b: 0.3 if (a, b) == (0.4, 0.4) else 0.0)
    values = {"mixup": 0.4, **({"label_smoothing": 0.1} if task == "classification" else {})}
    seen, loss, x, y, model = seen_by(values, task=task)
    torch.testing.assert_close(seen, 0.3 * x + 0.7 * x.roll(1, 0))
    out = model(seen)
    if task == "regression":
        expected = F.mse_loss(out[:, 0], 0.3 * y + 0.7 * y.roll(1))
    else:
        own, other = (F.cross_entropy(out, labels, label_smoothing=0.1) for labels in (y, y.roll(1)))
        expected = 0.3 * own + 0.7 * other
    assert loss == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_it_cuts_and_pastes_patches(mixup: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "betavariate", lambda a, b: 0.5)
    monkeypatch.setattr(random, "random", lambda: 0.4)
    seen, loss, x, y, model = seen_by({"cutmix": 1.0, "mixup": mixup}, "cnn")
    half = torch.tensor(0.5).sqrt()
    inside = augmentation._patch(x.shape[2], x.shape[3], half, torch.tensor(0.4), torch.tensor(0.4))
    torch.testing.assert_close(seen, torch.where(inside, x.roll(1, 0), x))
    share = 1.0 - inside.float().mean().item()
    own, other = (F.cross_entropy(model(seen), labels).item() for labels in (y, y.roll(1)))
    assert loss == pytest.approx(share * own + (1 - share) * other, rel=1e-5)
    assert 0.3 < share < 0.7


def test_its_noise_has_the_strengths_of_the_recipe() -> None:
    torch.manual_seed(0)
    seen, _, x, *_ = seen_by({"input_noise": 0.5})
    assert (seen - x).std().item() == pytest.approx(0.5, rel=0.15)
    seen, _, x, *_ = seen_by({"feature_masking": 0.3})
    assert (seen == 0).float().mean().item() == pytest.approx(0.3, abs=0.07)
    assert bool(((seen == 0) | (seen == x)).all())


@pytest.mark.parametrize(
    "values", [{"averaging": "ema", "ema_decay": 0.8}, {"averaging": "swa", "swa_start": 0.4}, {"averaging": "swa"}]
)
def test_its_averages_are_the_service_s(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean that `holds` asks for, of the weights and statistics behind every update."""
    own = recipe(**values, normalization="batch", width=4)
    names = program(own, spec(early_stopping=None))
    behind: list[list[Tensor]] = []
    step = names["train_step"]

    def recorded(model: nn.Module, *rest: Any) -> None:
        step(model, *rest)
        behind.append([each.detach().clone() for each in model.state_dict().values() if each.is_floating_point()])

    monkeypatch.setitem(names, "train_step", recorded)
    on = data()
    model = names["train"](on.x, on.y, on.x, on.y, CLASSES)
    updates = len(behind) // names["EPOCHS"]
    shares = np.concatenate([holds(own, epoch, names["EPOCHS"], updates) for epoch in range(names["EPOCHS"])])
    mean = behind[0]
    for hold, present in zip(shares, behind, strict=True):
        mean = [float(hold) * a + (1.0 - float(hold)) * b for a, b in zip(mean, present, strict=True)]
    found = [each for each in model.state_dict().values() if each.is_floating_point()]
    for ours, theirs in zip(mean, found, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_its_class_weights_are_the_service_s(monkeypatch: pytest.MonkeyPatch) -> None:
    names = program(recipe(class_weights=0.5, width=4), spec())
    given: list[Tensor] = []
    monkeypatch.setitem(names, "train_step", lambda *arguments: given.append(arguments[-1]))
    x, y = torch.zeros(10, FEATURES), torch.tensor([0] * 7 + [1] * 3)
    names["train"](x, y, x, y, CLASSES)
    expected = 0.5 + 0.5 * class_weights(y.numpy(), CLASSES)
    np.testing.assert_allclose(given[0], expected, rtol=1e-6)


def test_it_trains_with_all_of_it() -> None:
    torch.manual_seed(0)
    strengths: dict[str, Any] = dict.fromkeys(("rotation", "shift", "shear", "zoom", "cutout"), 0.05)
    rates: dict[str, Any] = {
        "mixup": 0.1,
        "cutmix": 0.1,
        "input_noise": 0.1,
        "feature_masking": 0.02,
        "horizontal_flip": 0.5,
    }
    own = setting("cnn", **strengths, **rates, averaging="ema", ema_decay=0.8, class_weights=1.0, width=8, lr=0.02)
    on = images("cnn")
    stopping = {**spec()["early_stopping"], "patience": 30}
    names = program(own, spec(budget={"epochs": 30}, early_stopping=stopping))
    model = names["train"](on.x[on.train[0]], on.y[on.train[0]], on.x[on.valid[0]], on.y[on.valid[0]], 2)
    assert (model(on.x).argmax(1) == on.y).float().mean() > 0.75
