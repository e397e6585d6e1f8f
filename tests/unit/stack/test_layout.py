"""The threads that train blocks."""

from __future__ import annotations

import threading

from workers.stack.layout import Threads


def test_a_program_that_is_being_built_takes_the_place_of_a_thread() -> None:
    building = True
    threads = Threads(2, lambda: building)
    lock, met = threading.Lock(), threading.Barrier(2)
    training, most = 0, 0

    def train() -> None:
        nonlocal training, most
        with lock:
            training += 1
            most = max(most, training)
        sum(range(20_000))
        with lock:
            training -= 1

    for done in threads.start([train] * 50):
        done.result()
    assert most == 1
    building = False
    for together in threads.start([lambda: met.wait(60.0)] * 2):  # each waits until the other one trains, too
        together.result()
    threads.close()


def test_a_block_that_fails_leaves_its_place() -> None:
    threads = Threads(2, lambda: True)

    def fail() -> None:
        raise ValueError("a block")

    assert all(isinstance(done.exception(), ValueError) for done in threads.start([fail] * 5))
    threads.close()
