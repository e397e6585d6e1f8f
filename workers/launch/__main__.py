"""`regsearch launch`: start workers on a cluster as the queue wants them, and stop them with Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_origin

from service.errors import RegsearchError
from service.logs import set_up_logging
from service.settings import environment_of, load_settings
from service.store import open_store
from workers.launch.actors import RayEngine, RayProfile
from workers.launch.jobs import SlurmEngine, SlurmProfile
from workers.launch.manifests import KubernetesProfile, apply, render
from workers.launch.profile import CannotLaunch, Profile, read_profile
from workers.launch.scaler import Engine, Scaler, too_large, wanted_workers

log = logging.getLogger(__name__)

PROFILES: dict[str, type[Profile]] = {"ray": RayProfile, "slurm": SlurmProfile, "kubernetes": KubernetesProfile}


class Stopping:
    """Two events: the first signal asks for an orderly end, the second for one at once."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.again = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._count)

    def _count(self, _number: int, _frame: types.FrameType | None) -> None:
        (self.again if self.asked.is_set() else self.asked).set()


def parser() -> argparse.ArgumentParser:
    """The command line: an engine, and an option for every value of its profile."""
    whole = argparse.ArgumentParser(prog="regsearch launch", description=__doc__)
    engines = whole.add_subparsers(dest="engine", required=True, metavar="|".join(PROFILES))
    for name, kind in PROFILES.items():
        one = engines.add_parser(name, help=kind.__doc__, description=kind.__doc__)
        one.add_argument("--profile", type=Path, help="YAML file with values of the options below, `max: 8` for --max 8")
        _add_actions(one, name)
        _add_options(one, kind)
    return whole


def _add_actions(one: argparse.ArgumentParser, engine: str) -> None:
    if engine == "kubernetes":
        one.add_argument("--apply", action="store_true", help="hand the manifests to kubectl, instead of printing them")
        return
    one.add_argument("--dry-run", action="store_true", help="tell what would be asked for, and ask for nothing")
    if engine == "slurm":
        one.add_argument("--once", action="store_true", help="look at the queue once, submit what is wanted, and end")
    one.add_argument("--until-empty", action="store_true", help="end when the queue and the cluster are empty")


def _add_options(one: argparse.ArgumentParser, kind: type[Profile]) -> None:
    for name, field in kind.model_fields.items():
        flag, about = f"--{name.replace('_', '-')}", str(field.description)
        default = "" if field.default in (None, {}, (), "") else f" Default: {field.default}."
        more: dict[str, Any] = {"default": argparse.SUPPRESS, "help": (about + default).replace("%", "%%")}
        if field.annotation is bool:
            one.add_argument(flag, action=argparse.BooleanOptionalAction, **more)
        elif get_origin(field.annotation) is dict:
            one.add_argument(flag, action="append", metavar="NAME=VALUE", **more)
        elif get_origin(field.annotation) is tuple:
            one.add_argument(flag, action="append", **more)
        else:
            one.add_argument(flag, metavar=name.upper(), **more)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; every expected failure is one clear message and an exit code."""
    given = parser().parse_args(arguments)
    kind = PROFILES[given.engine]
    try:
        options = {name: value for name, value in vars(given).items() if name in kind.model_fields}
        profile = read_profile(kind, given.profile, options)
    except CannotLaunch as error:
        print(f"regsearch launch: {error}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        if isinstance(profile, KubernetesProfile):
            apply(profile) if given.apply else sys.stdout.write(render(profile))
        else:
            _launch(given, profile)
    except RegsearchError as error:
        print(f"regsearch launch: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _launch(given: argparse.Namespace, profile: Profile) -> None:
    settings = load_settings()
    set_up_logging(settings)
    store = open_store(settings.database_url, settings.connections)
    engine = _engine(profile, environment_of(settings))
    try:
        if given.dry_run:
            demand = store.demand.read(profile.trials_per_worker, profile.devices_per_trial)
            wanted = wanted_workers(demand.workers, profile, engine.unit)
            shown = {"queue": vars(demand), "wanted": wanted, "each": engine.options()}
            print(json.dumps(shown, indent=2))  # noqa: T201  # the output of the command
            if why := too_large(demand, profile):
                print(f"regsearch launch: {why}", file=sys.stderr)  # noqa: T201
            return
        scaler = Scaler(store, engine, profile)
        if getattr(given, "once", False):
            scaler.step()
            return
        stopping = Stopping()
        scaler.run(stopping.asked.wait, until_empty=given.until_empty)
        if stopping.asked.is_set():
            logging.getLogger(__name__).info(
                "stopping; workers give their lanes back. Press Ctrl-C again to end them at once"
            )
            scaler.stop(stopping.again.wait)
    finally:
        store.close()


def _engine(profile: Profile, settings: dict[str, str]) -> Engine:
    match profile:
        case RayProfile():
            return RayEngine(profile, settings)
        case SlurmProfile():
            return SlurmEngine(profile, settings)
        case _:
            raise AssertionError(profile)


if __name__ == "__main__":
    sys.exit(main())
