"""Cutmix of rows: whole columns of the data, in proportion to the label's share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workers.plain.batches import changed, row_mixed
from workers.plain.chance import Chance

SOURCES = torch.tensor([0, 1, 2, 2, 2, 3, 3])


def test_columns_move_whole_and_give_their_share() -> None:
    x, other = torch.zeros(500, 6, 7), torch.ones(500, 6, 7)
    shares = torch.linspace(0, 1, 500)
    numbers = torch.rand(500, 4, generator=torch.Generator().manual_seed(1))
    mixed, own = row_mixed(x, other, shares, numbers, SOURCES)
    assert torch.equal(mixed, mixed[:, :1].expand_as(mixed))  # the same columns in the whole batch
    one_hot = mixed[:, 0, 2:5]
    assert torch.equal(one_hot, one_hot[:, :1].expand_as(one_hot))  # a category is not taken apart
    taken = mixed[:, 0, [0, 1, 2, 5]].numpy()
    np.testing.assert_allclose(own, 1.0 - taken.mean(1), atol=1e-6)
    assert own[-1] == 1.0
    assert own[0] == 0.0
    assert np.corrcoef(own, shares)[0, 1] > 0.7


def test_a_batch_is_mixed_with_the_example_before() -> None:
    x = torch.arange(5.0)[:, None].repeat(1, 7)
    seen = [changed(x, {"cutmix": 1.0}, Chance(seed, x.device), SOURCES.tolist()) for seed in range(40)]
    for mixed, share in seen:
        assert share is not None
        kept = (mixed == x).float()[:, [0, 1, 2, 5]].mean(1)
        assert kept.tolist() == pytest.approx([float(share)] * 5)
        assert bool(((mixed == x) | (mixed == x.roll(1, 0))).all())
    assert 0.3 < np.mean([float(share) for _, share in seen if share is not None]) < 0.7
