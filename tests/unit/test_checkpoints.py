"""Disk use is bounded: only states of trials that can still be resumed are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from workers.searching.checkpoints import Checkpoints


def test_only_states_of_open_trials_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.sweep(lambda ids: ids)  # there is no directory yet
    for trial_id in (1, 2, 30):
        checkpoints.save(trial_id, {"weights": torch.ones(2)})
    (tmp_path / "trial-2.part").touch()
    (tmp_path / "trial-4.part").touch()
    (tmp_path / "notes.txt").touch()
    asked: list[int] = []

    def still_open(ids: Sequence[int]) -> set[int]:
        asked.extend(ids)
        return {2}

    checkpoints.sweep(still_open)
    assert asked == [1, 2, 4, 30]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "trial-2.part", "trial-2.pt"]
