"""Out of memory, really: a process with a limit on its address space trains more lanes than fit, and loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CODE = """
import json, logging, resource, sys
import psutil
import torch
torch.set_num_threads(1)
from tests.unit.stack.runs import data, protocol, recipe, runner
from workers.training import Run

logging.basicConfig(stream=sys.stderr)
on, how, setting = data(), protocol(epochs=2), recipe(width=1000, depth=2)

def curves(count):
    stack = runner(setting, on)
    runs = [Run(i, setting, ((0, i),), how) for i in range(count)]
    stack.add(runs)
    done = {}
    while stack.wanted_lanes:
        for run in stack.epoch():
            if run.ending:
                done[run.key] = (run.ending, run.curve.get("loss"))
                stack.remove(run)
    return done

before = curves(2)
limit = psutil.Process().memory_info().vms + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
after = curves(int(sys.argv[2]))
print(json.dumps({"alone": before, "together": after}))
"""


def train_within(megabytes: int, runs: int) -> tuple[dict[str, dict[str, tuple[str, list[float]]]], str]:
    command = [sys.executable, "-c", CODE, str(megabytes), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_more_lanes_than_fit_are_trained_in_turns() -> None:
    found, log = train_within(megabytes=600, runs=40)
    assert "out of memory with 40 lanes" in log
    together = found["together"]
    assert len(together) == 40
    assert {ending for ending, _ in together.values()} == {"epochs"}
    for key, (_, curve) in found["alone"].items():
        assert abs(together[key][1][-1] - curve[-1]) < 1e-3


def test_a_run_that_does_not_even_fit_alone_fails() -> None:
    found, _ = train_within(megabytes=10, runs=2)
    assert {ending for ending, _ in found["together"].values()} == {"out_of_memory"}
