"""How many lanes a study gets, and how many threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.stack.runs import data, recipe
from workers.planning.calibration import calibrate
from workers.planning.plan import Plan, even, round_size
from workers.planning.process import usual_threads
from workers.stack.stack import StackKey


@pytest.mark.parametrize(("lanes", "size"), [(1, 1), (7, 7), (9, 8), (31, 28), (64, 64), (79, 64), (80, 80), (1000, 896)])
def test_stacks_have_one_of_a_few_sizes(lanes: int, size: int) -> None:
    assert round_size(lanes) == size


def test_the_last_generation_is_full_where_all_trials_train_equally_long() -> None:
    assert even(64, 80, runs=400) == 80  # five generations of 80 rather than six of 64 and one of 16
    assert even(64, 64, runs=400) == 64
    assert even(16, 40, runs=48) == 16


def test_a_plan_takes_its_threads_and_gives_them_back() -> None:
    usual = torch.get_num_threads()
    try:
        Plan(8, None, threads=1).take_threads()
        assert torch.get_num_threads() == 1
        Plan(8, None).take_threads()
        assert torch.get_num_threads() == usual_threads()
    finally:
        torch.set_num_threads(usual)


def test_a_calibration_is_remembered_with_all_that_it_found(tmp_path: Path) -> None:
    setting, on = recipe(), data()
    key = StackKey.of(setting, on.inputs, on.outputs)
    usual = torch.get_num_threads()
    found = calibrate(key, setting, on, 8, tmp_path)
    assert torch.get_num_threads() == usual
    assert found.threads in (None, 1)
    assert calibrate(key, setting, on, 8, tmp_path) == found
    assert len(list(tmp_path.iterdir())) == 1
