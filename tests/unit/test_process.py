"""What a worker's process is set to."""

from __future__ import annotations

import subprocess
import sys

SET_UP = """
import torch
from workers.planning.process import set_up, usual_threads
set_up({threads})
tiny = torch.full((1 << 20,), 1e-39)  # enough for a thread of the pool, too
print(int((tiny * 1.0 != 0).sum()), usual_threads(), torch.get_num_threads())
"""


def said(threads: int | None) -> list[int]:
    done = subprocess.run([sys.executable, "-c", SET_UP.format(threads=threads)], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_numbers_too_small_for_a_fast_multiplication_are_zero_in_every_thread() -> None:
    assert said(None)[0] == 0


def test_the_threads_that_a_worker_was_given_are_its_usual_ones() -> None:
    assert said(1) == [0, 1, 1]
    assert said(3) == [0, 3, 3]


def test_convolutions_are_in_tf32_only_where_it_is_asked_for() -> None:
    code = """
import torch
from workers.planning.process import set_up
from workers.stack.precision import shortened_products
set_up()
found = []
for on in (False, True, False):
    with shortened_products(on):
        found.append(torch.backends.cudnn.conv.fp32_precision == "tf32")
print(*found)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


def test_workers_that_share_a_machine_have_a_share_of_its_memory() -> None:
    code = """
from workers.planning.cores import usable_memory
from workers.planning.process import limit_memory
print(limit_memory(None, 0.25) == int(usable_memory() * 0.25), limit_memory(2048, 0.25) == 2 << 30)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_a_worker_has_a_memory_limit_of_its_own() -> None:
    code = """
import torch
from workers.planning.process import limit_memory
from workers.stack.memory import free_bytes, is_out_of_memory
assert limit_memory(2048) == 2 << 30
assert free_bytes(torch.device("cpu")) < 3 << 30
try:
    torch.zeros(1 << 30)
except RuntimeError as error:
    print(is_out_of_memory(error))
print(float(torch.ones(1 << 20).sum()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", str(float(1 << 20))]
