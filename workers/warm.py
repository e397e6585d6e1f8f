"""`python -m workers.warm diabetes …`: compile the programs of default studies of built-in data sets, before one is run.

For CPUs; on CUDA nothing is compiled. `regsearch warm` starts it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from service.datasets import BUILTIN
from service.search import Search, recipe
from service.settings import load_settings
from service.spec import StudySpec
from workers.data import DataSource, PrepareOptions, load_table, make_split, prepare_all
from workers.planning.plan import make_plan
from workers.planning.process import set_up
from workers.stack import programs
from workers.stack.blueprint import PARTS, Blueprint, StackKey
from workers.stack.building import build
from workers.stack.device_data import DeviceData
from workers.stack.stack import Stack
from workers.stack.techniques import techniques_in
from workers.study_data import wanted_metrics

_DRAWN = 200
"""Trials that are drawn to meet every stack key of a study."""


def blueprints_of(name: str) -> list[Blueprint]:
    """Those of all stacks of a study with all defaults."""
    task = BUILTIN[name].task
    table = load_table(DataSource(task=task, name=name))
    spec = StudySpec.model_validate({"data": {"dataset": name}}).resolved(task, table.rows)
    folds = prepare_all(table, make_split(table, spec.validation, spec.seed), PrepareOptions.of(spec.data))
    device, wanted = torch.device("cpu"), wanted_metrics(spec)
    data = DeviceData.of(folds, task=table.task, outputs=table.outputs, device=device, wanted=wanted)
    drawn = [params for params, _ in Search(spec, seed=0).propose(_DRAWN)]
    plan = make_plan(spec, drawn[0], data)
    found = {}
    for params in drawn if plan.compiled_lanes else []:
        key = StackKey.of(recipe(spec, params), data.inputs, data.outputs, data.categories, data.several)
        if key not in found:
            stack = Stack(key, data, techniques=techniques_in(spec.domains))
            stack.resize([], plan.compiled_lanes or 0)
            found[key] = stack.blueprint
    return list(found.values())


def warm(names: list[str], folder: Path) -> int:
    """Build what is not there yet; returns the number of programs that are there now."""
    wanted = [(name, blueprint, part) for name in names for blueprint in blueprints_of(name) for part in PARTS]
    for number, (name, blueprint, part) in enumerate(wanted, start=1):
        start = time.monotonic()
        build(blueprint, part, folder)
        line = f"{number}/{len(wanted)}  {name}: {part}, {time.monotonic() - start:.1f} s\n"
        sys.stdout.write(line)
        sys.stdout.flush()
    return len(wanted)


def main() -> int:
    """Parse the arguments and compile; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.warm", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="DATASET", help=f"of {', '.join(BUILTIN)}; default: all of them")
    names = parser.parse_args().names or list(BUILTIN)
    for name in names:
        if name not in BUILTIN:
            parser.error(f"there is no built-in data set {name!r}; allowed: {', '.join(BUILTIN)}")
    set_up()
    if programs.compiler() is None:
        parser.error("there is no C++ compiler on this machine: install g++ or clang++")
    warm(names, load_settings().cache / "programs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
