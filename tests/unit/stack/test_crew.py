"""A batch divided among devices: its gradient is that of the whole, whoever computes it.

Processes are real; what they train is compared with one process that does the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mynets
import numpy as np
import pytest

from tests.unit.stack.crew_run import CASES, allowed, curves
from workers.stack.crew import Crew


@pytest.fixture(scope="module", autouse=True)
def _allowed() -> None:
    allowed()


def trained(tmp_path: Path) -> dict[str, Any]:
    """What two processes have trained that torchrun has started."""
    out = tmp_path / "curves.json"
    path = os.pathsep.join([str(Path(mynets.__file__).parents[1]), str(Path(__file__).parents[3])])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.unit.stack.crew_run", str(out)]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert "(SIGKILL)" in done.stderr  # torchrun tells of the follower that was lost
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def assert_alike(found: Mapping[str, list[float]], expected: Mapping[str, list[float]]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("devices", [2, 3])
def test_parts_make_the_whole(devices: int) -> None:
    """Where nothing is drawn by chance nor normalized by batches, parts only change the order of sums."""
    assert_alike(curves("penalties", Crew(devices)), curves("penalties", None))


def test_processes_train_as_one_does(tmp_path: Path) -> None:
    """The same numbers are drawn, batches are normalized by the same parts; an error of a follower is rank 0's.

    In the last of the runs the follower is killed, which takes nothing with it: rank 0 computes its parts.
    """
    found = trained(tmp_path)
    for name in CASES:
        assert_alike(found[name], curves(name, Crew(2)))
    assert "mynets.good:small" in found["error"]
    assert found["lost"] == [True]
