"""Shorter arithmetic where it is asked for: TF32 products on CUDA, and automatic mixed precision in bfloat16.

Reference: Micikevicius et al., "Mixed precision training" (ICLR 2018); bfloat16 has float32's exponents, so no loss scaling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


@contextmanager
def shortened_products(on: bool) -> Iterator[None]:
    """Let CUDA multiply float32 matrices in TF32 inside the block; a CPU multiplies as ever."""
    if not on:
        yield
        return
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "tf32"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def products_are_shortened() -> bool:
    """Whether CUDA multiplies float32 matrices in TF32 at present."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def mixed_precision(device: torch.device, on: bool) -> AbstractContextManager[Any]:
    """A block whose matrix products and convolutions run in bfloat16, if ``on``."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if on else nullcontext()
