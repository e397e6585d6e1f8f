"""Requests in a second, and how long they take, of 50 clients at once: submit, get, list and trials in turn.

    python -m tests.benchmarks.load [--clients 50] [--seconds 20] [--processes 1 2] [--without postgresql]

The clients are in this process, on the same cores as the service, so figures are lower bounds.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from functools import partial

from tests.benchmarks.api_processes import Connection, many_files, serving
from tests.benchmarks.rounds import Options, Rounds

SPEC = {"data": {"dataset": "diabetes"}, "budget": {"trials": 10, "epochs": 5}}
KINDS = ("submit", "get", "list", "trials")


async def client(number: int, port: int, until: float, times: Mapping[str, list[float]]) -> None:
    """One client, that sends request after request; its own study is the one that it asks for."""
    connection = Connection(port)
    study = 1
    while time.perf_counter() < until:
        for kind in KINDS:
            method, path, body = {
                "submit": ("POST", "/v1/studies", {**SPEC, "name": f"client {number}"}),
                "get": ("GET", f"/v1/studies/{study}", None),
                "list": ("GET", "/v1/studies?limit=20", None),
                "trials": ("GET", f"/v1/studies/{study}/trials", None),
            }[kind]
            status, content, seconds = await connection.send(method, path, body)
            if status not in (200, 201):
                raise RuntimeError(f"{method} {path} answered {status}: {content[:500]!r}")
            times[kind].append(seconds)
            if kind == "submit":
                study = int(content[content.index(b'"id":') + 5 :].split(b",")[0])
    connection.close()


def measure(database: str, processes: int, clients: int, seconds: float) -> dict[str, float]:
    """Requests in a second, and milliseconds by kind."""
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}

    async def main(ports: list[int]) -> float:
        warm: dict[str, list[float]] = {kind: [] for kind in KINDS}
        await asyncio.gather(*(client(0, port, time.perf_counter() + 0.5, warm) for port in ports))
        start = time.perf_counter()
        until = start + seconds
        await asyncio.gather(*(client(each, ports[each % len(ports)], until, times) for each in range(clients)))
        return time.perf_counter() - start

    with serving(database, processes) as found:
        took = asyncio.run(main([port for port, _ in found]))
    every = sorted(each for kind in KINDS for each in times[kind])
    figures = {"requests_per_second": len(every) / took, **_figures("all", every)}
    for kind in KINDS:
        figures |= _figures(kind, sorted(times[kind]))
    return figures


def _figures(name: str, times: list[float]) -> dict[str, float]:
    return {f"{name}_median_ms": 1000 * statistics.median(times), f"{name}_p99_ms": 1000 * times[int(0.99 * len(times))]}


def main() -> None:
    """Both databases, with one process and with more."""
    quick = {"seconds": 2.0, "clients": 8, "processes": [1]}
    options = Options("load", __doc__, quick=quick, optional=("postgresql",))
    options.add_argument("--clients", type=int, default=50, help="that send at the same time")
    options.add_argument("--seconds", type=float, default=20.0, help="for each measurement")
    options.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="API processes on one database")
    given = options.given()
    many_files()
    rounds = Rounds("load", given, count="processes")
    figures = {}
    for database in ("sqlite", "postgresql"):
        if database in given.without:
            continue
        for processes in given.processes:
            name = f"{database}_{processes}"
            figures[name] = rounds.once(name, partial(measure, database, processes, given.clients, given.seconds))
    rounds.conclude(figures)


if __name__ == "__main__":
    main()
