"""Whether the worker of this machine or container is alive, for a health check: `python -m workers.healthy`.

The exit code is 0 if a worker with this host's name has been heard of, and 1 if not, or if the database does not answer.
"""

from __future__ import annotations

import socket
import sys
from contextlib import closing

from service.errors import RegsearchError
from service.settings import load_settings
from service.store import Store, open_store


def is_alive(store: Store, host: str) -> bool:
    """Whether a worker of a host has been heard of lately."""
    return any(worker.host == host and worker.state == "alive" for worker in store.workers.list())


def main() -> int:
    """See the module; returns the exit code."""
    try:
        with closing(open_store(load_settings().database_url)) as store:
            return 0 if is_alive(store, socket.gethostname()) else 1
    except RegsearchError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
