"""The processes of one worker, a device each: how rank 0, which is the worker, gives the others orders, and is answered.

An order is JSON with a few small tensors, in safetensors' format; large tensors follow by broadcasts, and results come back
as one sum. Processes are joined as torchrun has started them; gloo carries what is on a CPU, NCCL what is on CUDA. One that
is gone, or does not answer for `PATIENCE`, breaks the link for good. References: Li et al., "PyTorch distributed" (VLDB
2020); https://docs.pytorch.org/docs/stable/distributed.html.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from service.errors import RegsearchError

log = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=10)
"""How long a process waits for another one: longer than any part of a batch takes."""
STAY_SECONDS = 60.0
"""Interval between the signs of life of a rank 0 that has nothing to compute."""
_ORDER = "order"


class NotJoined(RegsearchError):
    """Not all processes of a worker are there."""


def processes() -> int:
    """How many processes torchrun has started for this worker; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """The place of this process among them; 0 is the worker."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """The place of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_processes() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def join(device: torch.device) -> None:
    """Join the processes of this worker; it returns when all are there.

    Raises:
        NotJoined: Some did not come within `PATIENCE`.
    """
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise NotJoined(f"the processes of this worker did not come together: {str(error).splitlines()[0]}") from error


def leave() -> None:
    """Leave them."""
    with suppress(RuntimeError):  # of processes that are gone
        dist.destroy_process_group()


class LinkBroken(Exception):
    """Another process is gone."""


class Link:
    """Rank 0's side. Thread-safe: orders are given one after the other, each by one thread with the ``lock``.

    ``on_break`` is called once, when another process is found to be gone; what it had to do, rank 0 has to do from then on.
    """

    def __init__(self, on_break: Callable[[], None]) -> None:
        self.processes = dist.get_world_size()
        self.lock = threading.Lock()
        self.broken: str | None = None
        """Why it is."""
        self._on_break = on_break
        self._done = threading.Event()
        self._heart = threading.Thread(target=self._stay, name="link", daemon=True)
        self._heart.start()

    def order(self, what: Mapping[str, Any], small: Mapping[str, Tensor], large: Sequence[Tensor]) -> None:
        """Give all others an order, with tensors on the CPU or small enough to go through it, and large ones.

        Raises:
            LinkBroken: Some process is gone.
        """
        shapes = [[list(each.shape), str(each.dtype).removeprefix("torch.")] for each in large]
        text = json.dumps({**what, "large": shapes}).encode()
        tensors = {name: each.detach().cpu().contiguous() for name, each in small.items()}
        message = save({**tensors, _ORDER: torch.frombuffer(bytearray(text), dtype=torch.uint8)})
        packed = torch.frombuffer(bytearray(message), dtype=torch.uint8)

        def send() -> None:
            dist.broadcast(torch.tensor([len(packed)]), 0)
            dist.broadcast(packed, 0)
            for each in large:
                dist.broadcast(each.detach().contiguous(), 0)

        self._guarded(send)

    def sum(self, own: Tensor) -> list[str]:
        """Add what all others have computed to ``own``; returns the errors that some of them met instead, in words.

        Raises:
            LinkBroken: Some process is gone.
        """
        errors: list[str] = []

        def receive() -> None:
            dist.reduce(own, 0)
            for other in range(1, self.processes):
                length = torch.zeros(1, dtype=torch.int64)
                dist.recv(length, other)
                if int(length):
                    text = torch.zeros(int(length), dtype=torch.uint8)
                    dist.recv(text, other)
                    errors.append(bytes(text.tolist()).decode())

        self._guarded(receive)
        return errors

    def close(self) -> None:
        """Let all others end."""
        self._done.set()
        with self.lock, suppress(LinkBroken):
            if self.broken is None:
                self.order({"do": "end"}, {}, [])
        self._heart.join()

    def _guarded(self, talk: Callable[[], None]) -> None:
        if self.broken is not None:
            raise LinkBroken(self.broken)
        try:
            talk()
        except RuntimeError as error:  # of gloo and of NCCL
            self.lose(str(error).splitlines()[0])
            raise LinkBroken from error

    def lose(self, how: str) -> None:
        """Note that another process is gone."""
        if self.broken is None and not self._done.is_set():
            self.broken = how
            log.error("the worker ends after this epoch, as it has lost another of its processes: %s", how)
            self._on_break()

    def _stay(self) -> None:
        """Show that rank 0 is alive while it gives no orders."""
        while not self._done.wait(STAY_SECONDS) and self.broken is None:
            if self.lock.acquire(blocking=False):
                try:
                    self.order({"do": "stay"}, {}, [])
                except LinkBroken:
                    return
                finally:
                    self.lock.release()


def received(device: torch.device) -> tuple[dict[str, Any], dict[str, Tensor], list[Tensor]]:
    """A follower's side: the next order, its small tensors on the CPU, and the large ones on ``device``.

    Raises:
        RuntimeError: Rank 0 is gone.
    """
    length = torch.zeros(1, dtype=torch.int64)
    dist.broadcast(length, 0)
    packed = torch.zeros(int(length), dtype=torch.uint8)
    dist.broadcast(packed, 0)
    small = load(packed.numpy().tobytes())
    what = json.loads(small.pop(_ORDER).numpy().tobytes())
    large = []
    for shape, dtype in what.pop("large"):
        large.append(torch.empty(shape, dtype=getattr(torch, dtype), device=device))
        dist.broadcast(large[-1], 0)
    return what, small, large


def answer(own: Tensor, error: str | None) -> None:
    """A follower's side of `Link.sum`: what it has computed, or zeros and an ``error``.

    Raises:
        RuntimeError: Rank 0 is gone.
    """
    dist.reduce(own, 0)
    text = (error or "").encode()
    dist.send(torch.tensor([len(text)]), 0)
    if text:
        dist.send(torch.frombuffer(bytearray(text), dtype=torch.uint8), 0)
