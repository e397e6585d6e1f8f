"""Large models: batches in parts give the update of the whole batch, and bfloat16 trains as float32 does, more coarsely."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.stack.runs import data, protocol, recipe, train
from workers.plain.network import build
from workers.stack.flat import FlatModel
from workers.stack.precision import mixed_precision, shortened_products
from workers.stack.stack import Stack, StackKey


def curve(**settings: Any) -> list[float]:
    (run,) = train([recipe(batch_size=20, **settings)], [7], data(), protocol(epochs=5))
    return run.curve["log_loss"]


@pytest.mark.parametrize("normalization", ["none", "layer"])
@pytest.mark.parametrize("parts", [2, 3, 20, 64])
def test_parts_of_a_batch_add_up_to_its_gradient(parts: int, normalization: str) -> None:
    whole = curve(normalization=normalization, l1=1e-3)
    np.testing.assert_allclose(curve(normalization=normalization, l1=1e-3, micro_batches=parts), whole, rtol=1e-4)


def test_every_part_has_masks_of_its_own() -> None:
    """With dropout the parts are other draws than the whole batch is, and still a lane does not see its neighbours."""
    settings = [recipe(dropout=rate, micro_batches=4, batch_size=20) for rate in (0.0, 0.5)]
    together = train(settings, [1, 2], data(), protocol())
    for setting, seed, run in zip(settings, (1, 2), together, strict=True):
        (alone,) = train([setting], [seed], data(), protocol())
        np.testing.assert_allclose(run.curve["log_loss"], alone.curve["log_loss"], rtol=1e-4)


def test_bfloat16_follows_float32() -> None:
    full, mixed = curve(lr=0.003), curve(lr=0.003, precision="bfloat16")
    assert mixed != full
    np.testing.assert_allclose(mixed, full, rtol=0.03)


def test_bfloat16_is_the_autocast_of_torch() -> None:
    setting, on = recipe(precision="bfloat16"), data()
    key = StackKey.of(setting, on.inputs, on.outputs)
    stack = Stack(key, on)
    stack.resize([], 1)
    stack.load(0, setting, seed=3)
    module: nn.Module = build(key.shape)
    module.load_state_dict(FlatModel(key.shape, on.device).state_dict(stack.state.weights[0], stack.state.stats[0]))
    rows = stack._batches()[0, 0]
    with mixed_precision(on.device, True):
        out = module(on.x[rows])
    expected = nn.functional.cross_entropy(out.float(), on.y[rows]).item()
    losses = stack.train_updates(np.full((1, stack.updates), 1e-3, dtype=np.float32), 1)
    assert losses.item() == pytest.approx(expected, rel=1e-5)


def test_tf32_is_only_on_inside_its_block() -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    with shortened_products(True):
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert torch.backends.cuda.matmul.fp32_precision == before
