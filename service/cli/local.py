"""Running the service on this machine: `up`, `serve`, `worker` and `demo`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from service.cli import render
from service.cli.supervisor import (
    CannotStart,
    Signals,
    Supervisor,
    check_port,
    child_environment,
    free_port,
    last_line,
    worker_devices,
)
from service.cli.watch import watch
from service.client.connection import HttpClient
from service.errors import RegsearchError
from service.settings import Settings, is_loopback

READY_SECONDS = 60.0
LINGER_SECONDS = 5
DEMO_STUDY = {"name": "demo", "data": {"dataset": "diabetes"}, "budget": {"trials": 60, "epochs": 100}}


def serve(settings: Settings) -> None:
    """Run the API and the dashboard in this process until a signal arrives. Creates or upgrades the database schema.

    Raises:
        CannotStart: The port is in use.
        DatabaseUnavailable: The database can't be reached.
    """
    from service.api.app import create_app
    from service.api.server import run
    from service.logs import set_up_logging
    from service.store import open_store
    from service.tracing import end_tracing, set_up_tracing

    check_protected(settings)
    check_port(settings.host, settings.port)
    set_up_logging(settings)
    set_up_tracing(settings, "regsearch-api")
    settings.home.mkdir(parents=True, exist_ok=True)
    store = open_store(settings.database_url, settings.connections, create=True)
    try:
        run(
            create_app(store, settings),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=LINGER_SECONDS,  # a client that never finishes must not keep the process alive
        )
    finally:
        store.close()
        end_tracing()


def check_protected(settings: Settings) -> None:
    """Check that a service which others can reach asks for tokens, or is unprotected on purpose.

    Raises:
        CannotStart: It does not.
    """
    if settings.auth == "off" and not is_loopback(settings.host):
        raise CannotStart(
            f"REGSEARCH_HOST={settings.host} lets everyone who reaches this machine do everything. Make a token "
            "(regsearch token create --scope admin --owner YOU) and set REGSEARCH_AUTH=tokens; or, if a proxy asks for "
            "passwords, set REGSEARCH_AUTH=unprotected"
        )


def address(settings: Settings) -> str:
    """The URL of the API for clients on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def work(device: str | None, devices: int) -> None:
    """Replace this process by a worker on ``device``, or on the first one found, and as many ``devices`` from there on."""
    arguments = ["--device", device] if device else []
    os.execv(sys.executable, [sys.executable, "-m", "workers", *arguments, *_several(devices)])


def _several(devices: int) -> list[str]:
    """Options of a worker that has several devices for one network."""
    return [] if devices == 1 else ["--devices-per-trial", str(devices)]


def launch(arguments: Sequence[str]) -> None:
    """Replace this process by one that starts workers on a cluster; it knows the ``arguments``."""
    os.execv(sys.executable, [sys.executable, "-m", "workers.launch", *arguments])


def warm(names: Sequence[str]) -> None:
    """Replace this process by one that compiles the programs of built-in data sets."""
    os.execv(sys.executable, [sys.executable, "-m", "workers.warm", *names])


@contextmanager
def running(
    settings: Settings, console: Console, workers: int | None, signals: Signals | None = None, per_device: int = 1
) -> Iterator[tuple[Supervisor, HttpClient]]:
    """Run the API, the dashboard and workers as child processes: ready when the block begins, ended when it ends.

    ``workers`` in all, device by device in turn; None: ``per_device`` on each.

    Raises:
        CannotStart: The port is in use, or workers can't run here.
        KeyboardInterrupt: One of ``signals`` arrived before everything was ready.
    """
    signals = signals or Signals()
    check_protected(settings)
    check_port(settings.host, settings.port)
    settings.home.mkdir(parents=True, exist_ok=True)
    environment = child_environment(
        home=str(settings.home.absolute()),
        host=settings.host,
        port=str(settings.port),
        db_url=settings.database_url,
        auth=settings.auth,
    )
    echo = partial(render.echo, console)
    with Supervisor(environment, settings.home, echo, lambda: signals.impatient) as supervisor:
        api = supervisor.add("api", "service.cli", "serve")
        client = HttpClient(address(settings))
        devices = worker_devices() if workers != 0 else []  # takes seconds; the API starts meanwhile
        _wait(api.log, supervisor, client, signals)
        each = settings.devices_per_trial
        devices = devices[: len(devices) // each * each : each] or devices[:1]
        count = len(devices) * per_device if workers is None else workers
        for index in range(count):
            sharing = len(range(index % len(devices), count, len(devices)))
            arguments = worker_arguments(devices[index % len(devices)], sharing)
            supervisor.add(f"worker-{index}", "workers", *arguments, *_several(each))
        try:
            yield supervisor, client
        finally:
            client.close()


def worker_arguments(device: str, count: int) -> list[str]:
    """Options of one of ``count`` workers on a device, who share its memory.

    Workers on the CPU share its cores, too: if each used all, they would slow down.
    """
    if count == 1:
        return ["--device", device]
    threads = ["--threads", str(max(1, (os.cpu_count() or 1) // count))] if device == "cpu" else []
    return ["--device", device, "--memory-share", f"{1 / count:.4g}", *threads]


def _wait(log: Path, supervisor: Supervisor, client: HttpClient, signals: Signals) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up:
        signals.check()
        if not supervisor.children[0].running:
            raise CannotStart(f"the API did not start: {last_line(log) or 'no output'} (see {log})")
        try:
            client.wait_until_ready(0.0)
        except RegsearchError:  # not ready yet
            time.sleep(0.05)
        else:
            return
    raise CannotStart(f"the API was not ready within {READY_SECONDS:.0f} s (see {log})")


def up(settings: Settings, console: Console, workers: int | None, per_device: int = 1) -> None:
    """Run the service until Ctrl-C; see `running`."""
    if settings.port == 0:
        settings = settings.model_copy(update={"port": free_port()})
    with (
        Signals() as signals,
        interruptible(console),
        running(settings, console, workers, signals, per_device) as (supervisor, client),
    ):
        render.echo(console, f"API and dashboard  {client.url}  (API reference: {client.url}/docs)")
        render.echo(console, f"Workers            {', '.join(child.name for child in supervisor.children[1:]) or 'none'}")
        render.echo(console, f"Data and logs      {settings.home}   –   Ctrl-C stops everything")
        while not signals.wait(0.2):
            supervisor.tick()
        render.echo(console, "Stopping; running trials return to the queue. Press Ctrl-C again to kill all processes.")


@contextmanager
def interruptible(console: Console) -> Iterator[None]:
    """Print one line instead of a traceback if a signal has ended the block."""
    try:
        yield
    except KeyboardInterrupt:
        render.echo(console, "Stopped.")


def demo(settings: Settings, console: Console, *, keep: bool, trials: int) -> None:
    """Run a whole study on real data, from start to result.

    Raises:
        CannotStart: The service does not start, or the study does not finish.
    """
    home = settings.home if keep else Path(tempfile.mkdtemp(prefix="regsearch-demo-"))
    port = settings.port if keep else free_port()
    own = {"home": home, "port": port, "db_url": settings.db_url if keep else None, "host": "127.0.0.1", "auth": "off"}
    chosen = settings.model_copy(update=own)
    start = time.monotonic()
    try:
        with Signals() as signals, interruptible(console), running(chosen, console, None, signals) as (supervisor, client):

            def alive() -> None:
                signals.check()
                supervisor.tick()

            spec = {**DEMO_STUDY, "budget": {"trials": trials, "epochs": 100}}
            render.echo(console, f"Searching {trials} regularization recipes for an MLP on `diabetes` (442 rows).")
            render.echo(console, f"Dashboard: {client.url}/dashboard")
            study = client.post("/v1/studies", spec)
            ended = watch(client, study["id"], console, alive)
            if ended["state"] != "finished":
                raise CannotStart(f"the study is {ended['state']}: {ended['reason']}")
            console.print(render.result(client.result(study["id"])))
            render.echo(console, f"From start to result in {render.seconds(time.monotonic() - start)}.")
            render.echo(console, f"Dashboard: {client.url}{study['links']['dashboard']}")
            if keep:
                render.echo(console, "All processes keep running; Ctrl-C stops them.")
                while not signals.wait(0.2):
                    supervisor.tick()
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)
