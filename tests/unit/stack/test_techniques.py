"""Techniques that only some lanes have on: what they do, and that the others neither pay for them nor notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.spec import Domain, Fixed, Range
from tests.unit.stack.runs import data, protocol, recipe, runner, train
from workers.plain.augmentation import AUGMENTATIONS
from workers.stack.lanes import LaneState, blank_columns
from workers.stack.run import Run
from workers.stack.techniques import TECHNIQUES, techniques_in, techniques_of


def test_proximal_l1_reaches_exact_zeros_and_reports_their_share() -> None:
    weak, strong, none = train(
        [recipe(proximal_l1=0.3), recipe(proximal_l1=3.0), recipe(l1=0.1)], [1, 2, 3], data(), protocol(epochs=30)
    )
    assert 0.0 < weak.curve["sparsity"][-1] < strong.curve["sparsity"][-1]
    assert strong.curve["sparsity"][-1] > 0.8
    assert "sparsity" not in none.curve


def test_the_share_of_zeros_is_that_of_the_weights_kept() -> None:
    stack = runner(recipe(), data())
    run = Run(0, recipe(proximal_l1=1.0), ((0, 1),), protocol(epochs=20))
    stack.add([run])
    while not run.ending:
        stack.epoch()
    stack.blocks[0].stack.keep_best([True])
    (weights,) = stack.best_weights(run)
    matrices = [value for value in weights.values() if value.ndim == 2]
    zeros = sum(int((value == 0).sum()) for value in matrices)
    assert run.curve["sparsity"][-1] == np.float32(zeros / sum(value.numel() for value in matrices))


def test_max_norm_binds_for_every_unit_of_its_lane_only() -> None:
    stack = runner(recipe(), data())
    runs = [Run(i, recipe(max_norm=limit, lr=0.05), ((0, 1),), protocol()) for i, limit in enumerate((0.0, 0.3, 1.0))]
    stack.add(runs)
    while not runs[0].ending:
        stack.epoch()
    stack.blocks[0].stack.keep_best([True] * 3)
    largest = []
    for run in runs:
        (weights,) = stack.best_weights(run)
        largest.append(max(value.norm(dim=1).max().item() for value in weights.values() if value.ndim == 2))
    assert largest[0] > 1.5
    np.testing.assert_allclose(largest[1:], [0.3, 1.0], rtol=1e-5)


def test_a_stack_computes_only_what_its_lanes_have_on() -> None:
    stack = runner(recipe(), data())
    stack.add([Run(0, recipe(l1=0.1), ((0, 1),), protocol()), Run(1, recipe(), ((0, 2),), protocol())])
    stack.epoch()
    assert stack.blocks[0].stack.techniques == {"l1"}
    stack.add([Run(2, recipe(clip_value=0.1, max_norm=1.0), ((0, 3),), protocol())])
    stack.epoch()
    assert stack.blocks[0].stack.techniques == {"l1", "clip_value", "max_norm"}


def test_a_lane_does_not_notice_a_technique_that_others_have_on() -> None:
    """Two lanes alike, one in a stack of plain ones, one beside a lane with everything."""
    techniques = {each.name for each in TECHNIQUES} - {
        "frozen",
        "huber_delta",
        "quantile",
        *AUGMENTATIONS,
    }  # of images, of an earlier study, or of a regression
    values = {**dict.fromkeys(techniques, 0.5), "nesterov": True, "averaging": "ema"}
    everything = recipe(**values, optimizer="sgd")
    plain = recipe(optimizer="sgd", dropout=0.3)
    (_, lane), (_, beside) = (train([first, plain], [1, 2], data(), protocol()) for first in (plain, everything))
    assert techniques_of([everything]) == techniques
    for name, curve in lane.curve.items():
        np.testing.assert_allclose(beside.curve[name], curve, rtol=1e-6, err_msg=name)


def test_the_techniques_of_a_study_are_known_from_its_space() -> None:
    domains: dict[str, Domain] = {
        "l1": Range(low=0.1, high=1.0),
        "l2": Fixed(value="off"),
        "max_norm": Fixed(value=1.0),
        "lr": Fixed(value=1.0),
    }
    assert techniques_in(domains) == {"l1", "max_norm"}


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False), (True, True)])
def test_a_lane_moves_between_stacks_with_and_without_averages(before: bool, after: bool) -> None:
    """Without averages a lane's average is its weights."""

    def zeros(averaging: bool) -> LaneState:
        device = torch.device("cpu")
        return LaneState.zeros(3, parameters=5, statistics=2, moments=2, averaging=averaging, device=device)

    old, new = zeros(before), zeros(after)
    for value in vars(old).values():
        value[:] = torch.arange(value.numel()).view(value.shape).to(value.dtype)
    new.load(2, old.lane(1))
    for name in ("weights", "first", "second", "stats", "updates"):
        torch.testing.assert_close(getattr(new, name)[2], getattr(old, name)[1])
    expected = old.evaluated()[0][1] if after else old.weights[1]
    torch.testing.assert_close(new.evaluated()[0][2], expected)
    assert not new.weights[:2].any()


def test_the_columns_of_idle_lanes_are_their_own() -> None:
    columns = blank_columns(2, 3, torch.device("cpu"))
    assert len({value.data_ptr() for value in columns.values()}) == len(columns)
