"""`python -m workers`: one worker on one device, in the foreground, or on several, with a process for each.

Torchrun may start these processes, or the worker itself does.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys

import torch

from service.errors import RegsearchError
from service.logs import set_up_logging
from service.settings import Settings, load_settings
from service.store import open_store
from service.tracing import end_tracing, set_up_tracing
from workers.followers import Followers
from workers.liveness import Stop
from workers.modules import published
from workers.notice import CLOUDS, watch
from workers.planning.cores import usable_cores
from workers.planning.process import end_with, limit_memory, set_up
from workers.stack.follower import follow
from workers.stack.link import Link, join, leave, local_processes, local_rank, processes, rank
from workers.worker import Worker, device_memory, devices


def main() -> int:
    """Parse the arguments and work until a signal arrives; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--device", default=None, help="cpu, cuda:0, …; default: the first of --list-devices")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; default: all, for one worker per machine")
    parser.add_argument("--idle-seconds", type=float, default=math.inf, help="end after this time without work")
    parser.add_argument("--memory-share", type=float, default=1.0, help="of the device's, which other workers share")
    parser.add_argument("--parent", type=int, default=None, help="stop when this process, which started it, ends")
    parser.add_argument("--notice", choices=CLOUDS, default=None, help="stop when this cloud takes the spot machine away")
    parser.add_argument("--devices-per-trial", type=int, default=1, help="processes, a device each, if not by torchrun")
    parser.add_argument("--list-devices", action="store_true", help="print the devices as a JSON list and exit")
    arguments = parser.parse_args()
    if arguments.list_devices:
        print(json.dumps(devices()))  # noqa: T201  # the output of the command
        return 0
    settings = load_settings()
    set_up_logging(settings)
    wanted = arguments.devices_per_trial
    followers = Followers(wanted - 1, _unable) if wanted > 1 and processes() == 1 else None
    set_up(_threads(arguments.threads))
    try:
        device = _device(arguments.device)
        memory = device_memory(device, arguments.memory_share)
        if memory is None:
            memory = limit_memory(settings.worker_memory_mb, arguments.memory_share)
        if rank() > 0:
            return _follow(settings, torch.device(device), arguments.parent or os.getppid())
        return _work(settings, arguments, device, memory, followers)
    except RegsearchError as error:
        print(f"regsearch worker: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _work(settings: Settings, arguments: argparse.Namespace, device: str, memory: int, followers: Followers | None) -> int:
    """Be the worker."""
    stop = Stop()
    stop.on_signals()
    started_by_torchrun = processes() > 1 and followers is None
    parent = os.getppid() if started_by_torchrun else arguments.parent
    if parent is not None and not end_with(parent):
        return 1
    if arguments.notice is not None:
        watch(arguments.notice, stop.asked.set)
    set_up_tracing(settings, "regsearch-worker")
    store = open_store(settings.database_url, settings.connections)
    link = None
    if processes() > 1:
        join(torch.device(device))
        link = Link(stop.asked.set)
    if followers is not None and link is not None:
        followers.on_loss = link.lose
    worker = Worker(store, settings, device, stop, memory, arguments.idle_seconds, link)
    worker.run()
    store.close()
    end_tracing()
    if link is None:
        return 1 if worker.spoiled else 0
    link.close()
    if followers is not None:
        followers.close(told=link.broken is None)
    leave()
    return 0 if link.broken is None else 1


def _follow(settings: Settings, device: torch.device, parent: int) -> int:
    """Compute for the worker until it ends, which alone heeds signals to stop."""
    if not end_with(parent, signal.SIGKILL):
        return 1
    published(settings.modules)
    join(device)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    code = follow(device)
    leave()
    return code


def _unable(how: str) -> None:
    """End this process, which waits for one that is gone."""
    print(f"regsearch worker: {how} before it had begun", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(1)


def _device(asked: str | None) -> str:
    """The device of this process: from the first one onwards, each process has its own.

    Raises:
        RegsearchError: There are fewer.
    """
    first = asked or devices()[0]
    kind, _, number = first.partition(":")
    if kind == "cpu" or local_processes() == 1:
        return first
    place = int(number or 0) + local_rank()
    if place >= torch.cuda.device_count():
        raise RegsearchError(f"there is no {kind}:{place} for process {rank()} of {processes()}")
    return f"{kind}:{place}"


def _threads(asked: int | None) -> int | None:
    """CPU threads of this process: its share of the worker's."""
    if local_processes() == 1:
        return asked
    return max(1, (asked or math.floor(usable_cores())) // local_processes())


if __name__ == "__main__":
    sys.exit(main())
