"""How much memory a stack needs at its peak: measured for a few lanes, foretold for more.

On CUDA the allocator keeps count. On a CPU nothing does, so every tensor is followed from its creation to its end; memory
that a kernel takes inside one operation is not seen.
"""

from __future__ import annotations

import resource
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ALLOCATOR_MESSAGES = ("not enough memory", "can't allocate memory", "Cannot allocate memory", "can't start new thread")
_NO_CODE = "could not create a primitive"
"""What oneDNN says where there is no memory for the code of a convolution that it has not made before."""

RESERVE = 0.2
"""Share of the free memory that is left alone: for other stacks, for fragmentation, and for what is not seen."""


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most memory that tensors made by ``call`` held at once on ``device``."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with _Followed() as followed:
        call()
    return int(followed.peak)


@dataclass(frozen=True)
class MemoryNeed:
    """The peak of a stack: ``base`` bytes, and ``lane`` bytes more for every lane."""

    base: int
    lane: int

    @classmethod
    def measured(cls, call: Callable[[int], object], device: torch.device) -> MemoryNeed:
        """From the peaks of ``call(k)`` with two lanes and with four; one alone is run in another way.

        On CUDA a first call does not count: in it libraries allocate what they keep.
        Where these do not fit, nothing is known but that a stack of one lane has to do.
        """
        try:
            if device.type == "cuda":
                peak_bytes(partial(call, 2), device)
            two, four = (peak_bytes(partial(call, lanes), device) for lanes in (2, 4))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return cls(base=0, lane=int(free_bytes(device)) + 1)
        return cls(base=max(0, 2 * two - four), lane=max(1, (four - two) // 2))

    def bytes(self, lanes: int) -> int:
        """The peak to be expected of ``lanes`` lanes."""
        return self.base + self.lane * lanes

    def most_lanes(self, free: float) -> int:
        """How many lanes fit into ``free`` bytes; at least one, which has nowhere else to go."""
        return max(1, int((free - self.base) // self.lane))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: CUDA has a class for it, the CPU's libraries and threads without a stack only a message.

    It may have been the first error of two: a capture that it breaks off can fail once more when it ends.
    """
    messages = (*_ALLOCATOR_MESSAGES, _NO_CODE)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in messages):
        return True
    return error.__context__ is not None and is_out_of_memory(error.__context__)


def spoils_thread(error: BaseException) -> bool:
    """Whether the thread that met it can't make convolutions any more, however much memory there is.

    oneDNN's generator of code keeps its error in the thread, and fails by it ever after. Reference:
    https://github.com/uxlfoundation/oneDNN/pull/5907.
    """
    return _NO_CODE in str(error) or (error.__context__ is not None and spoils_thread(error.__context__))


def free_bytes(device: torch.device) -> float:
    """What a stack may take on ``device`` now."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        allocated = torch.cuda.memory_allocated(device)
        cached = torch.cuda.memory_reserved(device) - allocated
        share = torch.cuda.get_per_process_memory_fraction(device)  # below 1 where several workers have one device
        return min(free + cached, share * total - allocated) * (1.0 - RESERVE)
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    left = float(psutil.virtual_memory().available)
    if limit != resource.RLIM_INFINITY and sys.platform == "linux":
        left = min(left, float(limit - psutil.Process().memory_info().data))
    return max(0.0, left) * (1.0 - RESERVE)


def used_bytes(device: torch.device) -> int:
    """Memory that is in use on a CUDA device, by whomever; on a CPU, by this process."""
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        return int(whole - free)
    return int(psutil.Process().memory_info().rss)


class _Followed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages of all tensors that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {id(each.untyped_storage()) for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor) and id(each.untyped_storage()) not in known:
                self._follow(each.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self._now -= size
