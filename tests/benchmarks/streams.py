"""Memory and processor time of one API process with many streams of events in which nothing happens; how soon news come.

    python -m tests.benchmarks.streams [--streams 10000] [--idle 60]

Needs as many open files (`ulimit -n`) as streams, in this process and in the service's.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

import psutil

from tests.benchmarks.api_processes import Connection, many_files, serving
from tests.benchmarks.rounds import Options, Rounds

SPEC = {"executor": "external", "metric": "rmse", "space": {"dropout": [0, 0.1]}}
_AT_ONCE = 100


async def follow(port: int, path: str, opened: asyncio.Semaphore, news: list[float]) -> None:
    """One stream: until something happens, of which the time is noted."""
    async with opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**14)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
        await reader.readuntil(b"retry:")
    news.append(0.0)
    place = len(news) - 1
    await reader.readuntil(b"paused")
    news[place] = time.perf_counter()
    writer.close()


async def _send(port: int, path: str, body: object = None) -> None:
    """One request, by a connection of its own: the service closes those that are idle."""
    connection = Connection(port)
    await connection.send("POST", path, body)
    connection.close()


async def measured(port: int, process: psutil.Process, streams: int, idle: float, of: str) -> dict[str, float]:
    """Megabytes before and with the streams, the share of a core that they take, and seconds until all have news."""
    await _send(port, "/v1/studies", SPEC)
    before = process.memory_info().rss
    opened, news = asyncio.Semaphore(_AT_ONCE), list[float]()
    path = "/v1/events" if of == "all" else "/v1/studies/1/events"
    following = [asyncio.create_task(follow(port, path, opened, news)) for _ in range(streams)]
    while len(news) < streams:
        for task in following:
            if task.done():
                task.result()
        await asyncio.sleep(0.2)
    used = process.cpu_times()
    await asyncio.sleep(idle)
    busy = process.cpu_times()
    rss = process.memory_info().rss
    start = time.perf_counter()
    await _send(port, "/v1/studies/1/pause")
    await asyncio.gather(*following)
    delays = sorted(each - start for each in news)
    return {
        "megabytes_before": before / 1e6,
        "megabytes": rss / 1e6,
        "kilobytes_per_stream": (rss - before) / 1e3 / streams,
        "cores_while_idle": (busy.user + busy.system - used.user - used.system) / idle,
        "news_median_seconds": delays[len(delays) // 2],
        "news_last_seconds": delays[-1],
    }


def main() -> None:
    """Streams of all studies, and of one."""
    options = Options("streams", __doc__, quick={"streams": 200, "idle": 2.0})
    options.add_argument("--streams", type=int, default=10_000)
    options.add_argument("--idle", type=float, default=60.0, help="seconds in which nothing happens")
    given = options.given()
    many_files()
    rounds = Rounds("streams", given)

    def one(of: str) -> dict[str, float]:
        with serving("sqlite", 1) as ((port, process),):
            return asyncio.run(measured(port, psutil.Process(process.pid), given.streams, given.idle, of))

    rounds.conclude({of: rounds.once(of, partial(one, of)) for of in ("all", "study")})


if __name__ == "__main__":
    main()
