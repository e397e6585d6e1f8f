"""Programs compiled ahead of time and kept on disk: a function of tensors becomes a shared library, loaded in milliseconds.

`torch.compile` traces and checks anew in every process, which takes seconds however warm its cache is. Here the trace is
made once, for the shapes of the first call, and the library's name is a hash of everything that it depends on. Only for
CPUs.

Reference: AOTInductor, https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

_OPTIONS = {"aot_inductor.compile_wrapper_opt_level": "O0"}
"""The calls of the kernels take no time, but a third of the compilation if they are optimized."""
KEPT = 256
"""Libraries in a folder; of more, those not used for the longest time are removed. Each has one to three MB."""

log = logging.getLogger(__name__)

_SOURCES = Path(__file__).parents[1]


class Program:
    """``function``, compiled for the shapes that it is called with. It may write into its arguments.

    Arguments are tensors, and dictionaries or dataclasses of nothing but tensors. A call with other shapes than the one
    before loads, or makes, another library.

    Args:
        function: Returns a tensor, or a tuple of them. May depend on nothing but its arguments and ``description``.
        description: Everything else that changes what is computed.
        folder: Where libraries are kept.
    """

    def __init__(self, function: Callable[..., Any], description: str, folder: Path) -> None:
        self._function = function
        self._description = description
        self._folder = folder
        self._signature: Any = None
        self._library: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns for these arguments."""
        tensors = list(_tensors(arguments))
        signature = [(each.shape, each.stride(), each.dtype) for each in tensors]
        if signature != self._signature:
            self._library = self._load(arguments, tensors, signature)
            self._signature = signature
        out = self._library.run(tensors)
        return out[0] if len(out) == 1 else tuple(out)

    def _load(self, arguments: Sequence[Any], tensors: Sequence[Tensor], signature: Any) -> Any:
        path = self._folder / f"{self._name(signature)}.pt2"
        if path.exists():
            with contextlib.suppress(RuntimeError):
                return _opened(path)
            log.warning("%s can't be loaded, and is compiled again", path)
        start = time.monotonic()
        _compile(self._function, arguments, [each.clone() for each in tensors], path)
        log.info("compiled", extra={"program": path.name, "seconds": round(time.monotonic() - start, 1)})
        _tidy(self._folder)
        return _opened(path)

    def _name(self, signature: Any) -> str:
        what = repr((self._description, signature, torch.get_num_threads(), torch.__version__, _machine(), _sources()))
        return hashlib.sha256(what.encode()).hexdigest()[:24]


def _compile(function: Callable[..., Any], arguments: Sequence[Any], tensors: Sequence[Tensor], path: Path) -> None:
    def flat(*parts: Tensor) -> Any:
        return function(*_rebuilt(arguments, parts))

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the compiler's own code
        graph = make_fx(flat)(*tensors)
        _turn_products(graph.graph)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        for name in [name for name, value in vars(graph).items() if isinstance(value, Tensor)]:
            constant = getattr(graph, name)
            delattr(graph, name)
            graph.register_buffer(name, constant)
        exported = torch.export.export(graph, tuple(tensors), strict=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.stem}-{os.getpid()}.pt2")
        torch._inductor.aoti_compile_and_package(exported, package_path=str(temporary), inductor_configs=_OPTIONS)
    temporary.replace(path)


def _turn_products(graph: Graph) -> None:
    """Where A·B is only used transposed, compute Bᵀ·Aᵀ: the compiler transposes a product one element after the other.

    The gradient of every layer's weights is such a product.
    """
    transpose = torch.ops.aten.transpose.int
    for product in graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default):
        last, user = product, _only_user(product)
        while user is not None and user.target is torch.ops.aten.view.default:
            last, user = user, _only_user(user)
        same_shape = last.meta["val"].shape == product.meta["val"].shape
        if user is not None and same_shape and user.target is transpose and user.args[1:] == (1, 2):
            with graph.inserting_before(user):
                turned = [graph.call_function(transpose, (factor, 1, 2)) for factor in reversed(product.args)]
                user.replace_all_uses_with(graph.call_function(torch.ops.aten.bmm.default, tuple(turned)))


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _opened(path: Path) -> Any:
    os.utime(path)  # it is in use
    # The public `aoti_load_package` imports the whole compiler first, which takes longer than all the rest.
    return torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)


def _tidy(folder: Path) -> None:
    """Remove what has not been used for the longest time; whoever has it loaded keeps it."""
    found = []
    for path in folder.glob("*.pt2"):
        with contextlib.suppress(FileNotFoundError):  # another worker is tidying, too
            found.append((path.stat().st_mtime, path))
    for _, path in sorted(found, reverse=True)[KEPT:]:
        path.unlink(missing_ok=True)


def _tensors(arguments: Sequence[Any]) -> Iterator[Tensor]:
    for each in arguments:
        if isinstance(each, Tensor):
            yield each
        else:
            yield from (each if isinstance(each, dict) else vars(each)).values()


def _rebuilt(arguments: Sequence[Any], parts: Sequence[Tensor]) -> list[Any]:
    """The arguments with ``parts`` for their tensors; the inverse of `_tensors`."""
    left = iter(parts)

    def rebuilt(each: Any) -> Any:
        if isinstance(each, Tensor):
            return next(left)
        if isinstance(each, dict):
            return dict(zip(each, itertools.islice(left, len(each)), strict=True))
        return type(each)(*itertools.islice(left, len(vars(each))))

    return [rebuilt(each) for each in arguments]


@functools.cache
def _sources() -> str:
    """A hash of the code that programs are made of."""
    texts = (path.read_bytes() for path in sorted(_SOURCES.rglob("*.py")))
    return hashlib.sha256(b"".join(texts)).hexdigest()


@functools.cache
def _machine() -> str:
    """The processor that a library is compiled for, and the instructions that may be used of it."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    models = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return repr((platform.machine(), platform.processor(), sorted(models), torch.backends.cpu.get_cpu_capability()))
