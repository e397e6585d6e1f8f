"""The memory a stack needs, foretold from few lanes; and out of memory, really: more lanes than a process may hold."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.unit.stack.runs import data, recipe
from workers.planning.plan import train_once
from workers.stack import memory
from workers.stack.memory import MemoryNeed, is_out_of_memory, peak_bytes
from workers.stack.stack import StackKey

CODE = """
import json, logging, resource, sys
import psutil
import torch
torch.set_num_threads(1)
from tests.unit.stack.runs import data, protocol, recipe, runner
from workers.stack.run import Run

logging.basicConfig(stream=sys.stderr)
on, how = data(), protocol(epochs=2)

def curves(count, width=1000):
    setting = recipe(width=width, depth=2)
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
after = curves(int(sys.argv[2]), int(sys.argv[3]))
print(json.dumps({"alone": before, "together": after}))
"""


def train_within(megabytes: int, runs: int, width: int = 1000) -> tuple[dict[str, dict[str, tuple[str, list[float]]]], str]:
    command = [sys.executable, "-c", CODE, str(megabytes), str(runs), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.costly
def test_more_lanes_than_fit_are_trained_in_turns() -> None:
    found, log = train_within(megabytes=300, runs=20)
    assert "out of memory with 20 lanes" in log
    together = found["together"]
    assert len(together) == 20
    assert {ending for ending, _ in together.values()} == {"epochs"}
    for key, (_, curve) in found["alone"].items():
        assert abs(together[key][1][-1] - curve[-1]) < 1e-3


@pytest.mark.costly
def test_a_run_that_does_not_even_fit_alone_fails() -> None:
    found, _ = train_within(megabytes=10, runs=2, width=4000)
    assert {ending for ending, _ in found["together"].values()} == {"out_of_memory"}


CONVOLUTIONS = """
import json, resource
import psutil
import torch
import torch.nn.functional as F
torch.set_num_threads(1)
from tests.unit.stack.runs import protocol, recipe, runner
from tests.unit.stack.test_families import data
from workers.stack.memory import is_out_of_memory
from workers.stack.run import Run

def convolve(channels):
    x = torch.ones(2, channels, 9, 9).contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, torch.ones(channels, channels, 3, 3), padding=1).sum().item()

convolve(3)
found = []
for channels in range(5, 40, 5):  # each takes code of its own
    limit = psutil.Process().memory_info().data + 1000 * channels
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    try:
        convolve(channels)
    except RuntimeError as error:
        found.append(error)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

on, how = data("cnn"), protocol(epochs=2)
endings = []
for count in (1, 3):
    setting = recipe(family="cnn", width=4 + count, depth=1)
    stack = runner(setting, on)
    stack.add([Run(i, setting, ((0, i),), how) for i in range(count)])
    while stack.wanted_lanes:
        for run in stack.epoch():
            if run.ending:
                endings.append((run.ending, len(run.curve["loss"])))
                stack.remove(run)
unknown = [str(error) for error in found if not is_out_of_memory(error)]
print(json.dumps({"failed": len(found), "unknown": unknown, "endings": endings}))
"""


def test_convolutions_that_ran_out_of_memory_can_be_trained_in_another_thread() -> None:
    """oneDNN, which meets it where it makes code, makes none in the same thread ever after."""
    command = [sys.executable, "-c", CONVOLUTIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["failed"] > 0
    assert found["unknown"] == []
    assert found["endings"] == [["epochs", 2]] * 4


SPOILED = """
import logging, resource, sys, threading
from pathlib import Path
import psutil
import torch
import torch.nn.functional as F
from service.settings import Settings
from service.spec import StudySpec
from service.store import open_store
from workers.liveness import Stop
from workers.worker import Worker
torch.set_num_threads(1)

def convolve(channels):
    x = torch.ones(2, channels, 9, 9).contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, torch.ones(channels, channels, 3, 3), padding=1).sum().item()

logging.basicConfig(stream=sys.stderr)
home = Path(sys.argv[1])
store = open_store(f"sqlite:///{home / 'regsearch.db'}", create=True)
raw = {"data": {"dataset": "digits"}, "model": {"family": "cnn", "width": 4, "depth": 1}}
raw["budget"] = {"trials": 2, "epochs": 1, "finalists": 1, "seeds": 2}
study = store.studies.submit(StudySpec.model_validate(raw).resolved("classification"))

convolve(3)
resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + 1000, resource.RLIM_INFINITY))
try:
    convolve(7)
except RuntimeError:
    pass
resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
worker = Worker(store, Settings(home=home), "cpu", Stop(), idle_seconds=1.0)
worker.run()
print(worker.spoiled, store.studies.get(study).state, store.studies.get(study).reason)
def run():
    worker = Worker(store, Settings(home=home), "cpu", Stop(), idle_seconds=1.0)
    worker.run()
    print(worker.spoiled, store.studies.get(study).state, store.studies.get(study).reason)
other = threading.Thread(target=run)
other.start()
other.join()
"""


@pytest.mark.costly
def test_a_worker_that_can_make_no_convolutions_any_more_leaves_its_study_to_another(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SPOILED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True finalizing None", "False finished None"]


STUDY = """
import logging, resource, sys
from pathlib import Path
import psutil
import torch
from service.settings import Settings
from service.spec import StudySpec
from service.store import open_store
from workers.liveness import Stop
from workers.worker import Worker
torch.set_num_threads(1)

logging.basicConfig(stream=sys.stderr)
home = Path(sys.argv[1])
store = open_store(f"sqlite:///{home / 'regsearch.db'}", create=True)
raw = {"data": {"dataset": "wine"}, "space": {"preset": "off"}, "model": {"widths": [12000, 12000]}}
raw["budget"] = {"trials": 2, "max_retries": 1}
study = store.studies.submit(StudySpec.model_validate(raw).resolved("classification"))
worker = Worker(store, Settings(home=home), "cpu", Stop())
limit = psutil.Process().memory_info().vms + 500 * 2**20  # one layer takes more
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
while worker.turn():
    pass
for trial in store.history.page(study)[0]:
    print(trial.number, trial.state, trial.attempt, trial.stop_reason, sep="|")
print(store.studies.get(study).reason)
"""


@pytest.mark.costly
def test_a_study_whose_model_does_not_fit_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUDY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    reason = "out of memory, alone on the device"
    of_study = f"no trial was completed; most often: {reason}"
    assert done.stdout.splitlines() == [*(f"{n}|fail|2|{reason}" for n in range(2)), of_study]


def peak_of(lanes: int, **settings: object) -> int:
    setting, on = recipe(**settings), data()
    key = StackKey.of(setting, on.inputs, on.outputs)
    return peak_bytes(lambda: train_once(key, setting, on, lanes), on.device)


@pytest.mark.parametrize("normalization", ["none", "batch", "layer", "weight"])
def test_the_peak_of_many_lanes_is_foretold_from_few(normalization: str) -> None:
    setting, on = recipe(normalization=normalization, width=64), data()
    key = StackKey.of(setting, on.inputs, on.outputs)
    need = MemoryNeed.measured(lambda lanes: train_once(key, setting, on, lanes), on.device)
    peak = peak_of(24, normalization=normalization, width=64)
    assert abs(need.bytes(24) - peak) < 0.2 * peak
    assert need.most_lanes(need.bytes(24)) == 24


def test_the_peak_is_what_the_profiler_of_torch_sees() -> None:
    def call() -> torch.Tensor:
        a = torch.ones(1000, 100)
        b = a @ a.T  # 1000 x 1000
        c = (b + 1.0).sum()
        return c + torch.zeros(10).sum()

    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        call()
    changes = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert peak_bytes(call, torch.device("cpu")) == pytest.approx(max(itertools.accumulate(changes)), rel=0.01)


def test_what_libraries_keep_from_the_first_call_on_cuda_is_no_need_of_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []

    def peak(call: Callable[[], object], device: torch.device) -> int:
        call()
        return called[-1] * 2**20 + (32 * 2**20 if len(called) == 1 else 0)

    monkeypatch.setattr(memory, "peak_bytes", peak)
    need = MemoryNeed.measured(called.append, torch.device("cuda"))
    assert need == MemoryNeed(base=0, lane=2**20)


def test_running_out_of_memory_is_seen_through_the_error_that_follows_it() -> None:
    @contextmanager
    def capture() -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    for first, expected in ((torch.OutOfMemoryError(), True), (ValueError(), False)):
        with pytest.raises(RuntimeError) as caught, capture():
            raise first
        assert is_out_of_memory(caught.value) is expected
