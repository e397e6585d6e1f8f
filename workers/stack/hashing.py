"""Counter-based random numbers: a value is a hash of what it is for, not the next one of a stream.

So a lane's data order and dropout masks depend on its own seed alone, whatever its neighbours are, and nothing has to
be drawn one lane at a time. All arithmetic is int32, which wraps, and which the compiler fuses into its consumer.

Reference: the finalizer `lowbias32` of C. Wellons, "Prospecting for hash functions" (2018); Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3" (SC 2011) for the idea.
"""

from __future__ import annotations

import functools
import math
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bits = TypeVar("Bits", Tensor, NDArray[np.int32])
"""int32 in torch, or in NumPy, which is several times faster for a few numbers on a CPU."""

_MULTIPLIER_1 = 0x7FEB352D
_MULTIPLIER_2 = 0x846CA68B - (1 << 32)
_GOLDEN = 0x9E3779B9 - (1 << 32)


def mix(x: Bits) -> Bits:
    """Scramble int32 values: a bijection in which every input bit flips each output bit about half of the time."""
    x = _high_mixed(x)
    return x ^ _shift_right(x, 16)


def combine(key: Bits, value: Bits | int) -> Bits:
    """A new int32 key from ``key`` and one more int32 coordinate (an update, a layer, an element)."""
    return mix(key * 31 + value * _GOLDEN)


def draw(key: Bits, counter: Bits) -> Bits:
    """Scrambled int32 bits for every ``counter`` under a ``key`` that `combine` has made.

    Nothing is computed from the key alone: in a compiled loop that would be scalar C++, where an overflow is undefined,
    while vector instructions wrap.
    """
    return mix(key ^ (counter * _GOLDEN))


def happens(chance: Tensor, key: Tensor, n: int) -> Tensor:
    """``n`` independent events under a ``key`` that `combine` has made, each with a ``chance`` in (0, 1]; scalars both.

    Decides on every unit that is dropped, so it takes few steps: it compares whole numbers, by their high bits.

    Returns:
        (n,) bool.
    """
    limit = ((0.5 - chance) * (1 << 32)).to(torch.int32)
    return _high_mixed(key ^ _scattered(n, key.device)) >= limit


def uniform(bits: Tensor) -> Tensor:
    """Turn scrambled int32 bits into float32 in [0, 1), in steps of 2⁻²⁴."""
    return (bits & 0xFFFFFF).to(torch.float32) * (1.0 / (1 << 24))


def normal(key: Tensor, counter: Tensor) -> Tensor:
    """Standard normal float32 for every ``counter`` under a ``key`` (Box and Muller 1958)."""
    first, second = uniform(draw(key, 2 * counter)), uniform(draw(key, 2 * counter + 1))
    return torch.sqrt(-2.0 * torch.log(1.0 - first)) * torch.cos(2.0 * math.pi * second)


def permutations(keys: Tensor, n: int) -> Tensor:
    """One random order of ``n`` rows for every key.

    Args:
        keys: (k,) int32, one per lane and epoch.
        n: Number of rows.

    Returns:
        (k, n) int64; each row is a permutation of 0 … n−1.
    """
    if keys.device.type == "cpu":
        bits = torch.from_numpy(draw(keys.numpy()[:, None], np.arange(n, dtype=np.int32)[None]))
    else:
        bits = draw(keys[:, None], torch.arange(n, dtype=torch.int32, device=keys.device)[None])
    return torch.argsort(bits, dim=1, stable=True)


def _scattered(n: int, device: torch.device) -> Tensor:
    """(n,) int32, the counters 0 … n−1 as `draw` scatters them.

    On CUDA they are no constant: a graph would go on reading the memory of one that the cache has dropped.
    """
    if torch.compiler.is_compiling() or device.type != "cpu":
        return torch.arange(n, dtype=torch.int32, device=device) * _GOLDEN
    return _kept_scattered(n, device)


@functools.lru_cache(maxsize=64)
def _kept_scattered(n: int, device: torch.device) -> Tensor:
    """Made by numpy, so that a program which is being traced holds them as a constant: to load them is faster."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.arange(n, dtype=np.int32) * np.int32(_GOLDEN)).to(device)


def _high_mixed(x: Bits) -> Bits:
    """`mix` without its last step, which only scrambles the lower half of the bits."""
    x = x ^ _shift_right(x, 16)
    x = x * _MULTIPLIER_1
    x = x ^ _shift_right(x, 15)
    return x * _MULTIPLIER_2


def _shift_right(x: Bits, bits: int) -> Bits:
    """Logical shift: int32's own shift would drag the sign along."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)
