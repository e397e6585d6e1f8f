"""The whole service on this machine: `up`, `serve`, `worker` and `demo`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from service.cli import render
from service.cli.client import Client
from service.cli.supervisor import CannotStart, Supervisor, check_port, child_environment, free_port, worker_devices
from service.cli.watch import watch
from service.settings import Settings

READY_SECONDS = 60.0
DEMO_STUDY = {"name": "demo", "data": {"dataset": "diabetes"}, "budget": {"trials": 100, "epochs": 100}}


def serve(settings: Settings) -> None:
    """The API and the dashboard in this process, until a signal comes. Creates or upgrades the database's schema."""
    import uvicorn

    from service.api.app import create_app
    from service.logs import set_up_logging
    from service.store import open_store

    set_up_logging(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    store = open_store(settings.database_url, create=True)
    app = create_app(store, settings)
    uvicorn.run(app, host=settings.host, port=settings.port, log_config=None, access_log=False, server_header=False)
    store.close()


def work(device: str | None) -> None:
    """One worker in this process."""
    arguments = ["--device", device] if device else []
    os.execv(sys.executable, [sys.executable, "-m", "workers", *arguments])


@contextmanager
def running(settings: Settings, console: Console, workers: int | None) -> Iterator[tuple[Supervisor, Client]]:
    """API, dashboard and workers as child processes, ready when the block begins, gone when it ends.

    Raises:
        CannotStart: The port is taken, or workers can't run here.
    """
    check_port(settings.host, settings.port)
    environment = child_environment(
        home=str(settings.home.absolute()),
        host=settings.host,
        port=str(settings.port),
        db_url=settings.database_url,
    )
    with Supervisor(environment, settings.home, lambda text: render.say(console, text)) as supervisor:
        api = supervisor.add("api", "service.cli", "serve")
        client = Client(f"http://{settings.host}:{settings.port}")
        devices = worker_devices() if workers != 0 else []  # takes seconds, in which the API starts
        _wait(api.log, supervisor, client)
        count = len(devices) if workers is None else workers
        for index in range(count):
            supervisor.add(f"worker-{index}", "workers", *_worker_arguments(devices[index % len(devices)], count))
        try:
            yield supervisor, client
        finally:
            client.close()


def _worker_arguments(device: str, count: int) -> list[str]:
    """Options of one of ``count`` workers: those on the CPU share its cores, for two that each take all slow each other."""
    threads = ["--threads", str(max(1, (os.cpu_count() or 1) // count))] if device == "cpu" and count > 1 else []
    return ["--device", device, *threads]


def _wait(log: Path, supervisor: Supervisor, client: Client) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up:
        if not supervisor.children[0].running:
            lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
            raise CannotStart(f"the API did not start: {lines[-1]} (see {log})")
        try:
            client.wait_until_ready(0.0)
        except Exception:  # not there yet
            time.sleep(0.05)
        else:
            return
    raise CannotStart(f"the API was not ready within {READY_SECONDS:.0f} s (see {log})")


def up(settings: Settings, console: Console, workers: int | None) -> None:
    """Run the service until Ctrl-C."""
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    with running(settings, console, workers) as (supervisor, client):
        render.say(console, f"API and dashboard  {client.url}  (API reference: {client.url}/docs)")
        render.say(console, f"Workers            {', '.join(child.name for child in supervisor.children[1:]) or 'none'}")
        render.say(console, f"Data and logs      {settings.home}   –   Ctrl-C stops everything")
        while not stop.wait(0.2):
            supervisor.tick()
        render.say(console, "Stopping; running trials go back to the queue.")


def demo(settings: Settings, console: Console, *, keep: bool, trials: int) -> None:
    """A whole study on real data, from nothing to the answer."""
    home = settings.home if keep else Path(tempfile.mkdtemp(prefix="regsearch-demo-"))
    port = settings.port if keep else free_port()
    chosen = settings.model_copy(update={"home": home, "port": port, "db_url": settings.db_url if keep else None})
    try:
        with running(chosen, console, None) as (supervisor, client):
            spec = {**DEMO_STUDY, "budget": {"trials": trials, "epochs": 100}}
            render.say(console, f"Searching {trials} regularization recipes for an MLP on `diabetes` (442 rows).")
            render.say(console, f"Dashboard: {client.url}/dashboard")
            study = client.post("/v1/studies", spec)
            ended = watch(client, study["id"], console, supervisor.tick)
            if ended["state"] != "finished":
                raise CannotStart(f"the study is {ended['state']}: {ended['reason']}")
            console.print(render.result(client.get(f"/v1/studies/{study['id']}/result")))
            render.say(console, f"Dashboard: {client.url}{study['links']['dashboard']}")
            if keep:
                render.say(console, "Everything keeps running; Ctrl-C stops it.")
                while True:
                    supervisor.tick()
                    time.sleep(0.2)
    except KeyboardInterrupt:
        render.say(console, "Stopped.")
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)
