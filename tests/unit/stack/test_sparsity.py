"""The sparsity curve of a trained network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.stack.runs import data, protocol, recipe, runner
from workers.plain.network import build
from workers.scoring.sparsification import SPARSITIES, sparsity_curve
from workers.stack.run import Run


def test_a_network_trained_towards_zeros_stays_as_good_at_higher_sparsity() -> None:
    """The curve begins at the network's own score and ends at chance; soft-thresholding moves its knee."""
    on, how = data(), protocol(epochs=40)
    stack = runner(recipe(), on)
    runs = [Run(i, recipe(proximal_l1=strength), ((0, 1),), how) for i, strength in enumerate((0.0, 0.2))]
    stack.add(runs)
    while not all(run.ending for run in runs):
        stack.epoch()
    x, y = on.x[on.valid[0]], on.y[on.valid[0]]

    def loss(module: nn.Module) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(module(x), y))

    curves = []
    for run in runs:
        (state,) = stack.best_weights(run)
        curves.append(sparsity_curve(build(stack.stack.key.shape), state, loss))
        assert curves[-1][0].score == pytest.approx(run.best_value, rel=1e-5)
        assert [point.asked for point in curves[-1]] == list(SPARSITIES)
        assert curves[-1][-1].score > curves[-1][0].score
    plain, sparse = ({point.asked: point.score - curve[0].score for point in curve} for curve in curves)
    assert curves[1][0].sparsity > 0.2 > curves[0][0].sparsity
    assert sparse[0.75] < plain[0.75]
