"""Whether an update and an evaluation are compiled: where there is a compiler, and the work to come pays for it.

Compiled, the whole update is one program, several times faster than the same code run eagerly. It has to be compiled for
every stack key and every number of lanes, so compiled stacks keep one number of lanes. On a CPU programs are kept on disk
(see `programs`); on CUDA they are graphs of their process.
"""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

ASSUMED_GAIN = 3.0
ASSUMED_SECONDS = 20.0
"""What a compilation brings and costs, when deciding. Fixed, so that a repeated search decides the same."""

MOST_PROGRAMS = 4096
"""Compiled programs of one process, over all of its studies."""


def pays(lane_updates: float, lane_updates_per_second: float) -> bool:
    """Whether so much work for one stack key, at so much a second when eager, is worth a compilation."""
    eager = lane_updates / lane_updates_per_second
    return eager - eager / ASSUMED_GAIN > ASSUMED_SECONDS


@functools.cache
def available(device_type: str) -> bool:
    """Whether there is a compiler for the device; if not, a warning is logged once."""
    if device_type == "cuda" or any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return True
    log.warning("no C++ compiler on this machine: stacks are trained without torch.compile, several times slower")
    return False


def compiled(function: F) -> F:
    """The same function as one program for CUDA, for the shapes it is first called with.

    It is captured as a CUDA graph, which takes the launches away that small networks are bound by.
    """
    # All stacks share the code of one update, and beyond 8 programs of one code the compiler would silently run it eagerly.
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = MOST_PROGRAMS
    return cast(F, torch.compile(function, dynamic=False, mode="reduce-overhead"))
