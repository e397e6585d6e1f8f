"""The further processes of a worker on several devices, where torchrun has not started them: its own children.

They end with it, through the kernel if it is killed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

_SECONDS = 30.0
"""For which they have time to end once they were told to."""


class Followers:
    """``count`` processes, each like this one but for its rank; this one is rank 0 from now on. ``on_loss`` is told of one
    that ends by itself, in words, in a thread of its own.
    """

    def __init__(self, count: int, on_loss: Callable[[str], None]) -> None:
        self.on_loss = on_loss
        self._closing = False
        common = {"WORLD_SIZE": str(count + 1), "LOCAL_WORLD_SIZE": str(count + 1)}
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        os.environ.update({**common, "RANK": "0", "LOCAL_RANK": "0"})
        command = [sys.executable, "-m", "workers", *sys.argv[1:], "--parent", str(os.getpid())]
        self._children: list[subprocess.Popen[bytes]] = []
        for place in range(1, count + 1):
            own = {**os.environ, "RANK": str(place), "LOCAL_RANK": str(place)}
            # In a session of its own: a Ctrl-C is for the worker, which ends the others in order.
            child = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, start_new_session=True)
            self._children.append(child)
            threading.Thread(target=self._watch, args=(place, child), name="follower", daemon=True).start()

    def close(self, *, told: bool) -> None:
        """Wait for their end, if they were ``told`` to, and kill those that do not end."""
        self._closing = True
        for child in self._children:
            try:
                child.wait(_SECONDS if told else 0.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _watch(self, place: int, child: subprocess.Popen[bytes]) -> None:
        code = child.wait()
        if not self._closing:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            self.on_loss(f"process {place} {how}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
