"""`python -m workers`: one worker on one device, in the foreground."""

from __future__ import annotations

import argparse
import json
import math
import sys

from service.errors import RegsearchError
from service.logs import set_up_logging
from service.settings import load_settings
from service.store import open_store
from workers.liveness import Stop
from workers.notice import CLOUDS, watch
from workers.planning.process import end_with, limit_memory, set_up
from workers.worker import Worker, device_memory, devices


def main() -> int:
    """Parse the arguments and work until a signal arrives; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--device", default=None, help="cpu, cuda:0, …; default: the first of --list-devices")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; default: all, for one worker per machine")
    parser.add_argument("--idle-seconds", type=float, default=math.inf, help="end after this time without work")
    parser.add_argument("--gpu-share", type=float, default=1.0, help="share of the GPU's memory, where workers share it")
    parser.add_argument("--parent", type=int, default=None, help="stop when this process, which started it, ends")
    parser.add_argument("--notice", choices=CLOUDS, default=None, help="stop when this cloud takes the spot machine away")
    parser.add_argument("--list-devices", action="store_true", help="print the devices as a JSON list and exit")
    arguments = parser.parse_args()
    if arguments.list_devices:
        print(json.dumps(devices()))  # noqa: T201  # the output of the command
        return 0
    set_up(arguments.threads)
    settings = load_settings()
    set_up_logging(settings)
    device = arguments.device or devices()[0]
    stop = Stop()
    stop.on_signals()
    if arguments.parent is not None and not end_with(arguments.parent):
        return 1
    if arguments.notice is not None:
        watch(arguments.notice, stop.asked.set)
    memory = device_memory(device, arguments.gpu_share)
    if memory is None:
        memory = limit_memory(settings.worker_memory_mb)
    try:
        store = open_store(settings.database_url)
    except RegsearchError as error:
        print(f"regsearch worker: {error}", file=sys.stderr)  # noqa: T201
        return 1
    Worker(store, settings, device, stop, memory, arguments.idle_seconds).run()
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
