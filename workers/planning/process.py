"""What a worker's process is set to before it computes anything: arithmetic, allocator, threads. Knows no study."""

from __future__ import annotations

import ctypes
import functools
import sys

import torch

_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt(3)`."""


def set_up(threads: int | None = None) -> None:
    """Set up this process and the threads that it starts from now on; ``threads`` of the CPU, or all.

    Numbers below 1.2e-38 are taken for zero: strong penalties shrink weights to such, with which a CPU multiplies up to a
    hundred times more slowly, and which no metric can see.
    """
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        _keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)


@functools.cache
def usual_threads() -> int:
    """CPU threads of this process, where no plan says otherwise: those it had when this was first asked."""
    return torch.get_num_threads()


def _keep_freed_memory() -> None:
    """Keep half a gibibyte of freed memory, for every update frees what the next one needs, and fresh pages are slow."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MALLOC_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_MALLOC_TRIM_THRESHOLD, 512 * 2**20)
