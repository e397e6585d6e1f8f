"""How the lanes of a stack key are laid out on a device: in blocks, on threads, by programs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from workers.stack.blueprint import Part
from workers.stack.workshop import Workshop

T = TypeVar("T")

TAIL = 4
"""A captured stack with less than a TAIL-th of its lanes in use is slower than an eager one of just these lanes."""


class Threads:
    """Threads that train blocks, each its own; with only one, they are trained by the caller.

    ``building`` tells whether a program is being built. This takes a core, so one thread less trains meanwhile: a block that
    has its program is trained several times as fast, and what would be trained beside it delays it.
    """

    def __init__(self, count: int = 1, building: Callable[[], bool] = lambda: False) -> None:
        self.count = count
        self._building = building
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="block") if count > 1 else None
        self._training = 0
        self._changed = threading.Condition()

    def start(self, calls: Iterable[Callable[[], T]]) -> list[Future[T]]:
        """Start calls, in this order."""
        if self._pool is not None:
            return [self._pool.submit(self._when_due, call) for call in calls]
        return [_done(call) for call in calls]

    def _when_due(self, call: Callable[[], T]) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._training < max(1, self.count - self._building()))
            self._training += 1
        try:
            return call()
        finally:
            with self._changed:
                self._training -= 1
                self._changed.notify()

    def renew(self) -> None:
        """Start what comes in other threads than so far, the caller's among them; what was started goes on."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="block")

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _done(call: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    try:
        future.set_result(call())
    except Exception as error:  # raised by `Future.result`, as of a thread's
        future.set_exception(error)
    return future


@dataclass(frozen=True)
class Layout:
    """``lanes`` of a block; None: one block of just the lanes that are in use.

    ``graphs``: the one block is captured for its number of lanes, on CUDA. ``workshop`` has the programs for blocks of
    this size, if there are to be any; ``builds``: those that are not there are made. ``taken_over`` says after how many
    rounds each part goes over to its program, in a search that is repeated; a part that is not in it never does. None: as
    soon as the program is there.
    """

    lanes: int | None = None
    graphs: bool = False
    workshop: Workshop | None = None
    builds: bool = True
    threads: Threads = field(default_factory=Threads)
    taken_over: dict[Part, int] | None = None

    def suits(self, lanes: int) -> bool:
        """Whether so few lanes in use should be computed by a captured stack."""
        return self.lanes is not None and lanes > self.lanes // TAIL
