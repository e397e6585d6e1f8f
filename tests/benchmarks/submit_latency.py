"""Milliseconds of a submit and of the usual reads over HTTP, and seconds until the service is ready.

    python -m tests.benchmarks.submit_latency [--calls 200] [--rounds 3]

Each round starts a service of its own, without workers, so that nothing else runs, and calls it one request after the other.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from service.cli.local import running
from service.cli.supervisor import free_port
from service.settings import Settings
from tests.benchmarks.rounds import Options, Rounds, spread

SPEC = {"data": {"dataset": "diabetes"}, "budget": {"trials": 10, "epochs": 5}}


def milliseconds(call: Callable[[], object], calls: int) -> tuple[float, float]:
    """Median and 95th percentile."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times), sorted(times)[int(0.95 * calls)]


def measure(calls: int) -> dict[str, float]:
    """One round."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), port=free_port())
        start = time.perf_counter()
        with running(settings, Console(stderr=True), 0) as (_, client):
            figures = {"ready_seconds": time.perf_counter() - start}
            requests: dict[str, Callable[[], object]] = {
                "submit": lambda: client.post("/v1/studies", SPEC),
                "get_study": lambda: client.get("/v1/studies/1"),
                "list_studies": lambda: client.get("/v1/studies"),
            }
            for name, call in requests.items():
                figures[f"{name}_median_ms"], figures[f"{name}_p95_ms"] = milliseconds(call, calls)
    return figures


def main() -> None:
    """Round after round."""
    options = Options("submit_latency", __doc__, quick={"calls": 10, "rounds": 1})
    options.add_argument("--calls", type=int, default=200, help="of each request in a round")
    options.add_argument("--rounds", type=int, default=3, help="services that are started and measured")
    given = options.given()
    rounds = Rounds("submit_latency", given)
    done = [rounds.once(f"{number}", partial(measure, given.calls)) for number in range(given.rounds)]
    rounds.conclude({name: spread(each[name] for each in done) for name in done[0]})


if __name__ == "__main__":
    main()
