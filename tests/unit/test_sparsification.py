"""Magnitude pruning by its definition: which weights become zero, and what is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from workers.scoring.sparsification import prunable, sparsity_curve

WEIGHTS = ["0.weight", "1.weight_ih_l0", "1.weight_hh_l0"]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4), nn.GRU(4, 3), nn.LayerNorm(3))


def test_weights_are_matrices_and_no_biases_or_gains() -> None:
    module = network()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    assert [names[id(getattr(layer, name))] for layer, name in prunable(module)] == WEIGHTS


def test_the_smallest_of_all_layers_together_become_zero_and_nothing_else_changes() -> None:
    state = {name: value.clone() for name, value in network().state_dict().items()}
    module, seen = network(), []

    def score(thinned: nn.Module) -> float:
        assert not thinned.training
        seen.append({name: value.clone() for name, value in thinned.state_dict().items()})
        with torch.no_grad():
            return float(module[1](module[0](torch.arange(5)))[0].sum())

    shares = (0.0, 0.3, 0.9, 1.0)
    points = sparsity_curve(module, state, score, shares)
    before = torch.cat([state[name].flatten() for name in WEIGHTS])
    for share, point, thinned in zip(shares, points, seen, strict=True):
        after = torch.cat([thinned[name].flatten() for name in WEIGHTS])
        gone = after == 0
        assert int(gone.sum()) == round(share * len(before))
        assert point.asked == share
        assert point.sparsity == pytest.approx(share, abs=0.5 / len(before))
        assert torch.equal(after[~gone], before[~gone])
        assert max(before[gone].abs().tolist(), default=0.0) <= min(before[~gone].abs().tolist(), default=torch.inf)
        assert all(torch.equal(thinned[name], state[name]) for name in state if name not in WEIGHTS)
    assert points[-1].score != points[0].score
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_a_share_is_checked() -> None:
    module = network()
    with pytest.raises(ValueError, match=r"1\.5"):
        sparsity_curve(module, module.state_dict(), lambda _: 0.0, (1.5,))
