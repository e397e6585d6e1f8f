"""Milliseconds of a submit and of the usual reads over HTTP: `python tests/benchmarks/submit_latency.py`."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from service.cli.local import running
from service.cli.supervisor import free_port
from service.settings import Settings
from tests.benchmarks.report import save

N = 200
SPEC = {"data": {"dataset": "diabetes"}, "budget": {"trials": 10, "epochs": 5}}


def measure(call: Callable[[], object]) -> dict[str, float]:
    """Median and 95th percentile over N calls, in milliseconds."""
    times = []
    for _ in range(N):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return {"n": N, "median_ms": round(statistics.median(times), 2), "p95_ms": round(sorted(times)[int(0.95 * N)], 2)}


def main() -> None:
    """Measure against a service without workers, so that nothing else runs."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), port=free_port())
        start = time.perf_counter()
        with running(settings, console, 0) as (_, client):
            figures: dict[str, object] = {"ready_seconds": round(time.perf_counter() - start, 2)}
            figures["submit"] = measure(lambda: client.post("/v1/studies", SPEC))
            figures["get_study"] = measure(lambda: client.get("/v1/studies/1"))
            figures["list_studies"] = measure(lambda: client.get("/v1/studies"))
    console.print(figures, f"{save('submit_latency', figures)}")


if __name__ == "__main__":
    main()
