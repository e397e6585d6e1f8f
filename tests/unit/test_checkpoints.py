"""Disk use is bounded: only states of trials that can still be resumed are kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from service.objects.local import LocalObjects
from workers.searching.checkpoints import Checkpoints


def test_only_states_of_open_trials_stay(tmp_path: Path) -> None:
    checkpoints, folder = Checkpoints(LocalObjects(tmp_path)), tmp_path / "checkpoints"
    checkpoints.sweep(lambda ids: ids)  # there is no directory yet
    for trial_id in (1, 2, 30):
        checkpoints.save(trial_id, {"weights": torch.ones(2)})
    (folder / "trial-2.part").touch()
    (folder / "trial-4.part").touch()
    (folder / "notes.txt").touch()
    asked: list[int] = []

    def still_open(ids: Sequence[int]) -> set[int]:
        asked.extend(ids)
        return {2}

    checkpoints.sweep(still_open)
    assert asked == [1, 2, 4, 30]
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "trial-2.part", "trial-2.pt"]


def test_a_checkpoint_that_finds_no_room_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints, folder = Checkpoints(LocalObjects(tmp_path)), tmp_path / "checkpoints"
    folder.mkdir()
    (folder / f"trial-1.{os.getpid()}.part").symlink_to("/dev/full")
    checkpoints.save(1, {"weights": torch.zeros(10_000)})
    assert "checkpoint of trial 1 can't be written" in caplog.text
    assert list(folder.iterdir()) == []
    checkpoints.save(1, {"epoch": 3})
    assert checkpoints.load(1) == {"epoch": 3}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"torn"])
def test_a_torn_checkpoint_counts_as_not_there(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "trial-1.pt").write_bytes(content)
    assert Checkpoints(LocalObjects(tmp_path)).load(1) is None
