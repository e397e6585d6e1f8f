"""Building of programs: a computation of a stack is traced and compiled to a library (see `programs`).

`python -m workers.stack.building` does it in a process of its own, so that stacks go on training meanwhile: it reads jobs
from its standard input, and answers each with a line when its library is in place. See `workshop` for the other side.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch._functorch.compile_utils import fx_graph_cse
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

from service.atomic import write_whole
from workers.plain.foreign import imported
from workers.stack.blueprint import Blueprint, Part, tensors_of
from workers.stack.programs import path_of, tidy

_OPTIONS = {"aot_inductor.compile_wrapper_opt_level": "O0", "aot_inductor.package": False}
"""The calls of the kernels take no time, but a third of the compilation if they are optimized."""


_NARROW = 32
"""Columns of a product, from which on it is turned: fewer are slow to compute, and soon transposed."""


def build(blueprint: Blueprint, part: Part, folder: Path) -> Path:
    """Compile a computation, unless it has been; returns the library's path.

    Libraries compute in one thread: every core runs a stack of its own.
    """
    path = path_of(blueprint, part, folder)
    if path.exists():
        return path
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        compile_function(blueprint.computation(part), blueprint.example(part), path)
    finally:
        torch.set_num_threads(threads)
    tidy(folder)
    return path


def compile_function(function: Callable[..., None], arguments: Sequence[Any], path: Path) -> None:
    """Compile a function that writes its results into its arguments, in their shapes, to a library at ``path``."""
    tensors = tensors_of(arguments)

    def flat(*parts: Tensor) -> Tensor:
        function(*_rebuilt(arguments, parts))
        return parts[0].new_zeros(1)  # a library has to return something

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the compiler's own code
        graph = make_fx(flat, decomposition_table=DECOMPOSITIONS)(*tensors)
        turn_products(graph.graph)
        graph.graph.eliminate_dead_code()
        graph.graph = fx_graph_cse(graph.graph)  # so that backward takes the exponentials of forward
        graph.recompile()
        for name in [name for name, value in vars(graph).items() if isinstance(value, Tensor)]:
            constant = getattr(graph, name)
            delattr(graph, name)
            graph.register_buffer(name, constant)
        exported = torch.export.export(graph, tuple(tensors), strict=False)
        made = _compiled(exported.module(), tuple(tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    content = Path(made).read_bytes()
    write_whole(path, lambda file: file.write(content))


def _compiled(module: Any, tensors: tuple[Tensor, ...]) -> str:
    """The path of the library, for the instructions that the processor has."""
    config = torch._inductor.config.cpp
    config.vec_isa_ok = True  # as /proc/cpuinfo tells; to try each set of instructions takes seconds
    try:
        return str(torch._inductor.aot_compile(module, tensors, options=_OPTIONS))
    except torch._inductor.exc.CppCompileError:  # the compiler does not know all of them
        config.vec_isa_ok = None
        return str(torch._inductor.aot_compile(module, tensors, options=_OPTIONS))


def _mish(x: Tensor) -> Tensor:
    """x·tanh(log(1 + eˣ)) by one exponential: with n = eˣ(eˣ + 2), the tangent is n / (n + 2).

    The compiler's own form, a hyperbolic tangent of a logarithm, takes a third of the time of a whole update.
    """
    _, n = _powers(x)
    return x * (n / (n + 2.0))


def _mish_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The derivative of `_mish`: its tangent, and x times that of the tangent, 4eˣ(eˣ + 1) / (n + 2)²."""
    e, n = _powers(x)
    whole = 1.0 / (n + 2.0)
    return grad * (n * whole + x * (4.0 * e * whole) * ((e + 1.0) * whole))


def _powers(x: Tensor) -> tuple[Tensor, Tensor]:
    """eˣ and n, of x up to 20, from where on the tangent is 1 in float32."""
    e = x.clamp(max=20.0).exp()
    return e, e * (e + 2.0)


DECOMPOSITIONS: Mapping[Any, Callable[..., Tensor]] = {
    torch.ops.aten.mish.default: _mish,
    torch.ops.aten.mish_backward.default: _mish_backward,
}
"""What some operations are computed as in programs, by fewer steps than the compiler takes."""


def turn_products(graph: Graph) -> None:
    """Where A·B is only used transposed, compute Bᵀ·Aᵀ: the compiler transposes a product one element after the other.

    The gradient of every layer's weights is such a product. One of few columns is faster as it stands.
    """
    transpose = torch.ops.aten.transpose.int
    for product in graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default):
        last, user = product, _only_user(product)
        while user is not None and user.target is torch.ops.aten.view.default:
            last, user = user, _only_user(user)
        same_shape = last.meta["val"].shape == product.meta["val"].shape
        wide = min(product.meta["val"].shape[1:]) >= _NARROW
        if wide and user is not None and same_shape and user.target is transpose and user.args[1:] == (1, 2):
            with graph.inserting_before(user):
                turned = [graph.call_function(transpose, (factor, 1, 2)) for factor in reversed(product.args)]
                user.replace_all_uses_with(graph.call_function(torch.ops.aten.bmm.default, tuple(turned)))


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _rebuilt(arguments: Sequence[Any], parts: Sequence[Tensor]) -> list[Any]:
    """The arguments with ``parts`` for their tensors; the inverse of `tensors_of`."""
    left = iter(parts)

    def own(each: Any) -> Any:
        if isinstance(each, Tensor):
            return next(left)
        if isinstance(each, dict):
            return {name: next(left) for name in each}
        return type(each)(*(next(left) for _ in vars(each)))

    return [own(each) for each in arguments]


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Build what is asked for until there is nothing more to come."""
    while True:
        try:
            blueprint, part, folder = pickle.load(jobs)  # from the worker that started this process
        except EOFError:
            return
        try:
            if blueprint.key.shape.module is not None:
                imported(blueprint.key.shape.module)
            build(blueprint, part, folder)
            reason = ""
        except Exception as error:  # the worker goes on without this program
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        answers.write(f"{reason}\n".encode())
        answers.flush()


if __name__ == "__main__":
    # The compiler's own output must not get among the answers.
    with contextlib.suppress(BrokenPipeError), os.fdopen(os.dup(1), "wb") as own:  # the worker has ended
        os.dup2(2, 1)
        serve(sys.stdin.buffer, own)
