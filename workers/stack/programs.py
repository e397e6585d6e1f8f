"""Programs compiled ahead of time: a computation of a stack as a shared library, kept on disk and loaded in milliseconds.

`torch.compile` traces and checks anew in every process, which takes seconds however warm its cache is. Here the trace is
made once, and the library's name is a hash of everything that it depends on. A library computes in the thread that calls
it, which holds no lock of the interpreter meanwhile, so every core can run a stack of its own. Only for CPUs.

Reference: AOTInductor, https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import itertools
import logging
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from service.atomic import write_whole
from workers.plain.foreign import registered, source_hash
from workers.plain.packages import PACKAGES, Makes
from workers.stack.blueprint import Blueprint, Part

KEPT = 256
"""Libraries in a folder; of more, those not used for the longest time are removed. Each has one to four MB."""

log = logging.getLogger(__name__)

_SOURCES = Path(__file__).parents[1]
_INSTALLED = frozenset(name.partition(".")[0] for name in PACKAGES)
_DRIVER = Path(__file__).with_name("driver.cpp")
_DTYPES = (torch.float32, torch.int32, torch.int64)
_MOST_DIMENSIONS = 8
_ELF = struct.Struct("<4s36xQ10xHH2x")
"""Of the header of a library for 64 bits: its mark, and place, entry size and number of entries of the section table."""


class _Argument(ctypes.Structure):
    """`Argument` of the driver."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("step", ctypes.c_int64),
        ("ndim", ctypes.c_int64),
        ("sizes", ctypes.c_int64 * _MOST_DIMENSIONS),
        ("strides", ctypes.c_int64 * _MOST_DIMENSIONS),
        ("dtype", ctypes.c_int32),
    )


class Program:
    """A loaded library. One thread at a time may run it; each further `opened` is another one."""

    def __init__(self, path: Path, driver: ctypes.CDLL) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._driver = driver
        self._container = ctypes.c_void_p()
        self._arguments: ctypes.Array[_Argument] | None = None
        create = self._library.AOTInductorModelContainerCreateWithDevice
        if create(ctypes.byref(self._container), ctypes.c_size_t(1), b"cpu", None):
            raise OSError(f"{path} can't be loaded")
        weakref.finalize(self, self._library.AOTInductorModelContainerDelete, self._container)

    def run(self, fixed: Sequence[Tensor], stepped: Sequence[Tensor] = (), times: int = 1) -> None:
        """Call the computation ``times`` times; it writes its results into its arguments.

        All runs have tensors of the same shapes and strides, but for the number of rows of ``stepped``.

        Args:
            fixed: The first arguments, the same in every call.
            stepped: The others, stacked: call i gets row i of each.
            times: How often, at most the number of these rows.

        Raises:
            RuntimeError: A call failed.
        """
        count = len(fixed) + len(stepped)
        if self._arguments is None:
            each = [_argument(tensor) for tensor in fixed] + [_argument(tensor, stepped=True) for tensor in stepped]
            self._arguments = (_Argument * count)(*each)
        else:  # the shapes stay the same
            for argument, tensor in zip(self._arguments, itertools.chain(fixed, stepped), strict=True):
                argument.data = tensor.data_ptr()
        run = self._library.AOTInductorModelContainerRun
        failed = self._driver.regsearch_run(*_torch_functions(), run, self._container, self._arguments, count, times)
        if failed:
            raise RuntimeError(f"{self.path.name} failed in call {failed}")


def opened(path: Path) -> Program | None:
    """The library at ``path``; None if there is none, or none that can be loaded."""
    if not path.exists() or (driver := _driver(path.parent)) is None:
        return None
    try:
        os.utime(path)  # it is in use
        _refuse_torn(path)
        return Program(path, driver)
    except (OSError, AttributeError) as error:
        log.warning("%s can't be loaded, and is compiled again: %s", path, error)
        path.unlink(missing_ok=True)
        return None


def _refuse_torn(path: Path) -> None:
    """Raise OSError for a library whose end is missing: to load it would kill the process.

    Its header tells where its last part is, the table of sections (ELF, "System V ABI", chapter 4).
    """
    with path.open("rb") as file:
        head = file.read(_ELF.size)
    if len(head) < _ELF.size or not any(head):
        raise OSError("it is torn")
    magic, at, size, count = _ELF.unpack(head)
    if magic == b"\x7fELF" and at + size * count > path.stat().st_size:
        raise OSError("it is torn")


def path_of(blueprint: Blueprint, part: Part, folder: Path) -> Path:
    """Where the library of a computation is, or will be."""
    module = blueprint.key.shape.module
    theirs = None if module is None else _source_of(module)
    what = repr((blueprint, part, torch.__version__, _machine(), _sources(), theirs))
    return folder / f"{hashlib.sha256(what.encode()).hexdigest()[:24]}.so"


@functools.cache
def compiler() -> str | None:
    """The C++ compiler of this machine; without one there are no programs, and a warning is logged once."""
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return found
    log.warning("no C++ compiler on this machine: stacks are trained without compiled programs, several times slower")
    return None


def tidy(folder: Path) -> None:
    """Remove what has not been used for the longest time; whoever has it loaded keeps it."""
    found = []
    for path in folder.glob("*.so"):
        with contextlib.suppress(FileNotFoundError):  # another worker is tidying, too
            found.append((path.stat().st_mtime, path))
    for _, path in sorted(found, reverse=True)[KEPT:]:
        path.unlink(missing_ok=True)


def _argument(tensor: Tensor, *, stepped: bool = False) -> _Argument:
    tensor = tensor.detach()
    row = tensor[0] if stepped else tensor
    step = tensor.stride(0) * tensor.element_size() if stepped else 0
    shape = (ctypes.c_int64 * _MOST_DIMENSIONS)(*row.shape), (ctypes.c_int64 * _MOST_DIMENSIONS)(*row.stride())
    return _Argument(tensor.data_ptr(), step, row.ndim, *shape, _dtypes()[tensor.dtype])


@functools.cache
def _torch_library() -> ctypes.CDLL:
    folder = Path(torch.__file__).parent / "lib"
    names = ("libtorch_cpu.so", "libtorch_cpu.dylib")
    return ctypes.CDLL(str(next(folder / name for name in names if (folder / name).exists())))


@functools.cache
def _torch_functions() -> tuple[object, object]:
    library = _torch_library()
    return library.aoti_torch_create_tensor_from_blob_v2, library.aoti_torch_delete_tensor_object


@functools.cache
def _dtypes() -> dict[torch.dtype, int]:
    library = _torch_library()
    return {dtype: getattr(library, f"aoti_torch_dtype_{str(dtype).removeprefix('torch.')}")() for dtype in _DTYPES}


@functools.cache
def _driver(folder: Path) -> ctypes.CDLL | None:
    """The loop around a library's calls (driver.cpp), which is compiled in no time."""
    source = _DRIVER.read_bytes()
    path = folder / f"driver-{hashlib.sha256(source + _machine().encode()).hexdigest()[:16]}.lib"
    try:
        if path.exists():
            with contextlib.suppress(OSError):
                _refuse_torn(path)
                return _callable(path)
        if (command := compiler()) is None:
            return None
        with tempfile.TemporaryDirectory() as workplace:
            made = Path(workplace) / path.name
            subprocess.run([command, "-O2", "-shared", "-fPIC", str(_DRIVER), "-o", str(made)], check=True)
            content = made.read_bytes()
        write_whole(path, lambda file: file.write(content))
        return _callable(path)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("the programs in %s can't be called, stacks are trained without them: %s", folder, error)
        return None


def _callable(path: Path) -> ctypes.CDLL:
    driver = ctypes.CDLL(str(path))
    driver.regsearch_run.restype = ctypes.c_int64
    driver.regsearch_run.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 2
    return driver


@functools.cache
def _sources() -> str:
    """A hash of the code that programs are made of."""
    return _code_in([_SOURCES / "stack", _SOURCES / "plain"])


def _code_in(folders: Sequence[Path]) -> str:
    """A hash of the files of Python in folders."""
    texts = (path.read_bytes() for folder in folders for path in sorted(folder.rglob("*.py")))
    return hashlib.sha256(b"".join(texts)).hexdigest()


def _source_of(name: str) -> str | None:
    """What a module of theirs is made of, as far as can be told; what it takes from elsewhere shows when it is checked."""
    top = name.partition(":")[0].partition(".")[0]
    return _version_of(top) if top in _INSTALLED else _files_of(registered(name))


_version_of = functools.cache(importlib.metadata.version)
"""It is asked for before every epoch, and looked up on the disk."""


@functools.cache
def _files_of(make: Makes) -> str | None:
    """A hash of all files of its package, whatever becomes of them after the first call."""
    package = sys.modules.get(str(getattr(make, "__module__", "")).partition(".")[0])
    folders = [Path(folder) for folder in getattr(package, "__path__", ())]
    return _code_in(folders) if folders else source_hash(make)


@functools.cache
def _machine() -> str:
    """The processor that a library is compiled for, and the instructions that may be used of it."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    models = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return repr((platform.machine(), platform.processor(), sorted(models), torch.backends.cpu.get_cpu_capability()))
