"""Setup of a worker's process before it computes anything: arithmetic, allocator, threads. Independent of studies."""

from __future__ import annotations

import ctypes
import functools
import gc
import math
import os
import resource
import signal
import sys

import torch

from workers.planning.cores import usable_cores, usable_memory

_MAPPED_ONLY = 1 << 30
_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt(3)`."""
_PR_SET_PDEATHSIG = 1
_KEPT_BYTES, _KEPT_PART = 512 << 20, 16
"""Of freed memory that a thread keeps, and at most which part of the process's limit."""


def set_up(threads: int | None = None) -> None:
    """Set up this process and the threads that it starts later, with ``threads`` CPU threads; None: all.

    Denormal numbers, below 1.2e-38, are flushed to zero: strong penalties shrink weights to such values, with which a CPU
    computes up to a hundred times more slowly, and which make no difference to any metric.

    Convolutions on CUDA are computed in float32, as matrix products are, unless a recipe asks for TF32: torch's own default
    is TF32 for them.
    """
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False
    if sys.platform == "linux":
        _keep_freed_memory()
    gc.freeze()  # else every full collection goes through what was imported, half a million objects
    if threads is not None:
        torch.set_num_threads(threads)
    usual_threads()


def limit_memory(megabytes: float | None, share: float = 1.0) -> int:
    """Limit this process to so much memory, or to a ``share`` in (0, 1] of what the machine has; returns the limit in bytes.

    Beyond it an allocation fails, which ends a study with its reason, where the kernel would kill the process. What a
    process maps is more than what it uses, by a part that does not grow with its studies.
    """
    limit = int(usable_memory() * share) if megabytes is None else int(megabytes * 2**20)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = limit + _MAPPED_ONLY
    if most == resource.RLIM_INFINITY or most > wanted:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
    if sys.platform == "linux":
        _keep_freed_memory(limit)
    return limit


def end_with(parent: int, number: int = signal.SIGTERM) -> bool:
    """Have the kernel send a signal to this process when its parent ends (Linux only); False if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


@functools.cache
def usual_threads() -> int:
    """The default number of CPU threads of this process: that at the first call."""
    return torch.get_num_threads()


def core_count() -> int:
    """How many blocks are trained at once: a thread for each core that may be used, or as many as were asked for."""
    return max(1, min(math.floor(usable_cores()), usual_threads()))


def _keep_freed_memory(limit: int = _KEPT_BYTES * _KEPT_PART) -> None:
    """Keep freed memory, as every update frees what the next one needs, and fresh pages are slow.

    Every thread keeps its own, which others can't use: at most a small part of a ``limit`` in bytes.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        kept = min(_KEPT_BYTES, limit // _KEPT_PART)
        libc.mallopt(_MALLOC_MMAP_THRESHOLD, kept // 16)
        libc.mallopt(_MALLOC_TRIM_THRESHOLD, kept)
