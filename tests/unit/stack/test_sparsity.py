"""The sparsity curve of a trained network."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.stack.runs import data, protocol, recipe, runner
from workers.plain.network import build
from workers.scoring.sparsification import SPARSITIES, sparsity_curve
from workers.stack.run import Run


def test_a_network_trained_towards_zeros_stays_as_good_at_higher_sparsity() -> None:
    """The curve begins at the network's own score and ends at chance; soft-thresholding moves its knee.

    Curves are of training rows, on which a network without a penalty is nearly perfect whatever its seed.
    """
    on, how, seeds = data(), protocol(epochs=40), 5
    stack = runner(recipe(), on)
    runs = [Run(i, recipe(proximal_l1=0.4 * (i >= seeds)), ((0, i % seeds),), how) for i in range(2 * seeds)]
    stack.add(runs)
    while not all(run.ending for run in runs):
        stack.epoch()

    def loss(rows: torch.Tensor, module: nn.Module) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(module(on.x[rows]), on.y[rows]))

    curves = []
    for run in runs:
        (state,) = stack.best_weights(run)
        validated = sparsity_curve(build(stack.blocks[0].stack.key.shape), state, partial(loss, on.valid[0]))
        assert validated[0].score == pytest.approx(run.best_value, rel=1e-5)
        curves.append(sparsity_curve(build(stack.blocks[0].stack.key.shape), state, partial(loss, on.train[0])))
        assert [point.asked for point in curves[-1]] == list(SPARSITIES)
        assert curves[-1][-1].score > curves[-1][0].score
    losses = np.array([[point.score - curve[0].score for point in curve] for curve in curves])
    zeros = np.array([curve[0].sparsity for curve in curves])
    assert zeros[seeds:].min() > 0.2 > zeros[:seeds].max()
    at = SPARSITIES.index(0.75)
    assert losses[seeds:, at].mean() < 0.5 * losses[:seeds, at].mean()
