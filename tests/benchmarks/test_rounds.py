"""Benchmarks run as their first lines say, and rounds outlive an interruption."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.machine import machine
from tests.benchmarks.rounds import ROOT, Rounds, in_turn, ratio, require, spread
from workers.planning.cores import quotas, usable_cores

HERE = Path(__file__).parent
SCRIPTS = sorted(path.stem for path in HERE.glob("*.py") if '\nif __name__ == "__main__":' in path.read_text())
EVERY_HELP = """
import contextlib, io, json, runpy, sys, warnings
warnings.simplefilter("ignore")  # runpy's, of modules that others have imported
found = {}
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__", alter_sys=True)
    found[name] = printed.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What every script prints on ``--help``, of one process, for importing torch takes the longest."""
    command = [sys.executable, "-c", EVERY_HELP, *SCRIPTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_as_its_first_lines_say(name: str, helps: dict[str, str]) -> None:
    usage, _, documentation = helps[name].partition("\n\n")
    assert usage.startswith(f"usage: python -m tests.benchmarks.{name} ")
    commands = documentation.split("\n\n")[1]
    assert commands.startswith(f"    python -m tests.benchmarks.{name}")
    assert set(re.findall(r"--[a-z-]+", commands)) <= set(re.findall(r"--[a-z-]+", usage))


def test_the_readme_names_every_script_and_every_result() -> None:
    readme = (HERE / "README.md").read_text()
    assert [name for name in SCRIPTS if f"`python -m tests.benchmarks.{name}" not in readme] == []
    assert [path.stem for path in HERE.glob("results/*.json") if f"results/{path.name}" not in readme] == []


def given(folder: Path, **options: Any) -> Namespace:
    return Namespace(results=folder, fresh=False, quick=False, **options)


KILLED = """
import os, pathlib, signal, sys
from argparse import Namespace
from tests.benchmarks.rounds import Rounds

rounds = Rounds("some", Namespace(results=pathlib.Path(sys.argv[1]), fresh=False, rounds=3))
rounds.once("0", lambda: {"rate": 7.5})
rounds.once("1", lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_rounds_outlive_a_kill(tmp_path: Path) -> None:
    """The same command goes on; what was measured is not measured again, and the last finished file stays until the end."""
    (tmp_path / "some.json").write_text("{}")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -9
    kept = json.loads((tmp_path / "some.unfinished.json").read_text())
    assert [(each["name"], each["figures"]) for each in kept["rounds"]] == [("0", {"rate": 7.5})]
    assert kept["n"] == 1
    assert kept["machine"] == machine()
    assert (tmp_path / "some.json").read_text() == "{}"

    rounds = Rounds("some", given(tmp_path, rounds=2))
    assert rounds.once("0", lambda: pytest.fail("measured twice")) == {"rate": 7.5}
    assert rounds.once("1", lambda: {"rate": 9.5}) == {"rate": 9.5}
    done = json.loads(rounds.conclude({"median": 8.5}).read_text())
    assert (done["n"], done["figures"], len(done["rounds"])) == (2, {"median": 8.5}, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["some.json"]


def test_a_round_that_fails_is_not_kept(tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    rounds = Rounds("some", given(tmp_path))
    rounds.once("0", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        rounds.once("1", fail)
    assert Rounds("some", given(tmp_path)).once("1", lambda: 2) == 2


def test_rounds_of_other_options_are_neither_taken_nor_overwritten(tmp_path: Path) -> None:
    Rounds("some", given(tmp_path, lanes=64, rounds=9)).once("0", lambda: 1)
    before = (tmp_path / "some.unfinished.json").read_text()
    with pytest.raises(SystemExit, match="begun with another lanes"):
        Rounds("some", given(tmp_path, lanes=32, rounds=9))
    assert (tmp_path / "some.unfinished.json").read_text() == before
    again = given(tmp_path, lanes=32, rounds=9)
    again.fresh = True
    assert Rounds("some", again).once("0", lambda: 5) == 5


def test_where_times_do_not_matter_rounds_add_up_over_machines(tmp_path: Path) -> None:
    """A finished file goes on; a round from elsewhere keeps the machine that it was measured on."""
    first = Rounds("some", given(tmp_path, splits=1), count="splits", anywhere=True)
    first.once("0", lambda: 1)
    path = first.conclude({})
    there = json.loads(path.read_text())
    assert "machine" not in there["rounds"][0]
    path.write_text(json.dumps(there | {"machine": {"processor": "another"}}))

    more = Rounds("some", given(tmp_path, splits=2), count="splits", anywhere=True)
    assert more.once("0", lambda: pytest.fail("measured twice")) == 1
    more.once("1", lambda: 2)
    done = json.loads(more.conclude({}).read_text())
    assert (done["n"], done["machine"]) == (2, machine())
    assert [each.get("machine") for each in done["rounds"]] == [{"processor": "another"}, None]
    with pytest.raises(SystemExit, match="begun with another trials"):
        Rounds("some", given(tmp_path, splits=2, trials=7), count="splits", anywhere=True)


def test_fewer_rounds_end_a_run_with_those_alone(tmp_path: Path) -> None:
    rounds = Rounds("some", given(tmp_path, rounds=9))
    for number in range(3):
        rounds.once(str(number), lambda: 1)
    less = Rounds("some", given(tmp_path, rounds=2))
    for number in range(2):
        less.once(str(number), lambda: pytest.fail("measured twice"))
    assert json.loads(less.conclude({}).read_text())["n"] == 2


def test_sides_take_turns_to_be_first() -> None:
    order: list[str] = []

    def side(name: str) -> str:
        order.append(name)
        return name.upper()

    sides = {name: lambda name=name: side(name) for name in "abc"}
    for number in range(3):
        assert in_turn(sides, number) == {"a": "A", "b": "B", "c": "C"}
    assert "".join(order) == "abcbcacab"


def test_ratios_are_taken_within_a_round() -> None:
    rounds = [{"ours": 10.0, "peer": 5.0}, {"ours": 2.0, "peer": 0.5}, {"ours": 9.0, "peer": 3.0}]
    assert ratio(rounds, "ours", "peer") == {"median": 3.0, "min": 2.0, "max": 4.0, "n": 3}
    assert spread([1.23456]) == {"median": 1.235, "min": 1.235, "max": 1.235, "n": 1}


def test_what_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    missing = {"peer": ("no_such_module", "peer[all]"), "there": ("json", "json")}
    monkeypatch.setattr("tests.benchmarks.rounds.OPTIONAL", missing)
    require(["there"])
    with pytest.raises(SystemExit):
        require(["there", "peer"])
    assert capsys.readouterr().err == "peer is not installed: pip install 'peer[all]', or leave it out: --without peer\n"


def test_a_quota_limits_the_cores(tmp_path: Path) -> None:
    """Control groups of version 2 and of version 1, with a limit on the group itself or on one above it."""
    (tmp_path / "jobs" / "mine").mkdir(parents=True)
    (tmp_path / "jobs" / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "jobs" / "mine" / "cpu.max").write_text("max 100000\n")
    assert list(quotas(tmp_path, "0::/jobs/mine\n")) == [1.5]
    (tmp_path / "cpu" / "old").mkdir(parents=True)
    (tmp_path / "cpu" / "old" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "old" / "cpu.cfs_period_us").write_text("100000\n")
    assert list(quotas(tmp_path, "3:cpuset:/old\n1:cpu,cpuacct:/old\n")) == [0.5]
    assert list(quotas(tmp_path, "1:cpu:/elsewhere\n")) == []
    assert usable_cores() > 0
