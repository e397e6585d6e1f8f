"""`python -m workers`: one worker on one device, in the foreground."""

from __future__ import annotations

import argparse
import json
import sys

from service.errors import RegsearchError
from service.logs import set_up_logging
from service.settings import load_settings
from service.store import open_store
from service.tracing import end_tracing, set_up_tracing
from workers.liveness import Stop
from workers.planning.process import limit_memory, set_up
from workers.worker import Worker, device_memory, devices


def main() -> int:
    """Parse the arguments and work until a signal arrives; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--device", default=None, help="cpu, cuda:0, …; default: the first of --list-devices")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; default: all, for one worker per machine")
    parser.add_argument("--list-devices", action="store_true", help="print the devices as a JSON list and exit")
    arguments = parser.parse_args()
    if arguments.list_devices:
        print(json.dumps(devices()))  # noqa: T201  # the output of the command
        return 0
    set_up(arguments.threads)
    settings = load_settings()
    set_up_logging(settings)
    device = arguments.device or devices()[0]
    memory = device_memory(device)
    if memory is None:
        memory = limit_memory(settings.worker_memory_mb)
    stop = Stop()
    stop.on_signals()
    try:
        set_up_tracing(settings, "regsearch-worker")
        store = open_store(settings.database_url, settings.connections)
    except RegsearchError as error:
        print(f"regsearch worker: {error}", file=sys.stderr)  # noqa: T201
        return 1
    Worker(store, settings, device, stop, memory).run()
    store.close()
    end_tracing()
    return 0


if __name__ == "__main__":
    sys.exit(main())
