"""How the suite is run: whole, in several processes of one thread each; which of its tests are numerical; equal seeds.

Tests depend on neither the order nor the process that they run in: `pytest -p no:xdist` runs them one after the other.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROCESSES = min(4, (os.cpu_count() or 1) + 1)
"""For a run of whole directories: one more than cores, as tests wait for processes that they have started."""
SHARED = ("service", "serving", "postgres", "s3", "browser")
"""Fixtures that start processes for a session; the tests of each stay in one process, and so does any module."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose the number of processes where the command line does not: one for single files, which is quicker then."""
    option = config.option
    if hasattr(config, "workerinput"):  # this is one of the processes, and must not start further ones
        return
    if not config.pluginmanager.hasplugin("xdist") or option.usepdb:
        return
    if option.numprocesses is None and PROCESSES > 1 and all(Path(each).is_dir() for each in config.args):
        option.numprocesses = PROCESSES
    if option.numprocesses and option.dist == "no":
        option.dist, option.loadscopereorder = "loadgroup", False  # acceptance tests, which take longest, come first
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of several processes wait for each other


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark numerical tests, and keep those together that share something."""
    if not isinstance(item, pytest.Function):
        return
    if not {"acceptance", "api", "benchmarks"} & {*item.path.parts} and _computes(item.module):
        item.add_marker("numerical")
    uses = {*item.fixturenames, *(("postgres",) if "postgresql" in item.name else ())}
    group = next((name for name in SHARED if name in uses), None)
    if group is None and "acceptance" not in item.path.parts:
        group = item.nodeid.split("::")[0]
    if group is not None:
        item.add_marker(pytest.mark.xdist_group(group))


@functools.cache
def _computes(module: ModuleType) -> bool:
    """Whether a test module has anything of torch, or of the packages of ours that compute with it."""
    origins = {getattr(value, "__module__", None) or getattr(value, "__name__", "") for value in vars(module).values()}
    computing = ("torch", "workers", "tests.benchmarks", "tests.unit.stack")
    beside = ("workers.launch", "workers.notice")  # which load no torch
    return any(origin.startswith(computing) and not origin.startswith(beside) for origin in map(str, origins))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Draws of torch's own generator are the same in any order of tests."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
