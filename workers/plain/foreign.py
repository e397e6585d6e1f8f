"""Networks of the users' own as a family: a module of theirs, with our dropout and normalization put into it.

Nothing is imported here: whoever may import a module registers it under its name (`register`), a worker what its operator
allows, a person who predicts the class in their hands. Shapes: `b` examples of the shape ``inputs``, `o` outputs.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from .layers import Draw, MakesDropout, no_dropout, state_of
from .packages import PACKAGES, Makes
from .replacing import Drops, replace_norms, with_dropout

ARGUMENT = "args."
"""How the names of arguments begin in a recipe."""

_REGISTERED: dict[str, Makes] = {}


class ModuleFault(Exception):
    """A module of theirs does not do what a network has to; the message names it and may be shown to users."""


def register(name: str, make: Makes) -> None:
    """Have ``make(inputs, outputs, **arguments)`` build the networks of the module ``name``."""
    _REGISTERED[name] = make


def registered(name: str) -> Makes:
    """What builds the networks of a module.

    Raises:
        ModuleFault: Nobody has registered it here.
    """
    package, _, attribute = name.partition(":")
    if name not in _REGISTERED and package in PACKAGES:
        try:
            return PACKAGES[package](attribute)
        except (ImportError, ValueError) as error:
            raise ModuleFault(f"{name} is not here: {error}") from error
    if name not in _REGISTERED:
        raise ModuleFault(f"{name} is not in the archive: Model.load(…, module={attribute}) or --module {name} uses yours")
    return _REGISTERED[name]


def imported(name: str) -> None:
    """Import and register `package.module:Class`: for programs whose user has asked for it.

    Raises:
        ModuleFault: It can't be imported.
    """
    package, _, attribute = name.partition(":")
    if package in PACKAGES:
        return
    try:
        register(name, getattr(importlib.import_module(package), attribute))
    except (ImportError, AttributeError, ValueError) as error:
        raise ModuleFault(f"{name} can't be imported: {error}") from error


def source_hash(make: Makes) -> str | None:
    """SHA-256 of the file that defines a module; None if there is none."""
    try:
        path = inspect.getsourcefile(make)
        return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return None


def sentence(error: BaseException) -> str:
    """An error of foreign code in one line.

    >>> sentence(ValueError("no way"))
    'ValueError: no way'
    """
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]


class Foreign(nn.Module):
    """A module of theirs, `net`. The keywords are settings of a recipe; further ones are its arguments, as `args.NAME`.

    Its `nn.Dropout` layers become those that ``dropout`` makes, numbered in order of their names, then come those put after
    the layers whose names match ``dropout_after`` (comma-separated patterns of `fnmatch`). Attention that drops out weights
    by itself no longer does.

    Raises:
        ModuleFault: It can't be built, or not so.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        *,
        module: str,
        dropout_after: str = "",
        dropout_layers: int = 0,
        replace_normalization: str = "own",
        freeze: str = "",
        layer_lr_decay: float = 1.0,
        categories: Sequence[int] = (),
        dropout: MakesDropout = no_dropout,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.name, self.inputs, self.outputs = module, tuple(inputs), outputs
        self.arguments = {name.removeprefix(ARGUMENT): value for name, value in arguments.items()}
        self.replaced = replace_normalization
        self.input_dropout = dropout("input_dropout")
        self.net = self._built()
        self.dropouts = with_dropout(self.net, dropout)
        self.put = nn.ModuleList()
        for layer in self._matching(dropout_after):
            self.put.append(dropout("dropout", len(self.dropouts) + len(self.put)))
            layer.register_forward_hook(Drops(self.put[-1]))
        found = len(self.dropouts) + len(self.put)
        if dropout_layers and dropout_layers != found:
            raise ModuleFault(f"{module} has {found} dropout layers, not {dropout_layers} as model.dropout_layers says")
        self.head = _head(self.net, outputs)
        self.decay = layer_lr_decay
        self.frozen = self._matching(freeze)
        for layer in self.frozen:
            layer.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in self.net.parameters()):
            raise ModuleFault(f"{module} has no parameter to train" + (", as all are frozen" if freeze else ""))

    def _built(self) -> nn.Module:
        """A new module of theirs with initial weights of its own, and its normalization replaced."""
        make = registered(self.name)
        try:
            net = make(self.inputs, self.outputs, **self.arguments)
        except Exception as error:  # theirs, of whatever kind
            given = self.arguments or "its defaults"
            raise ModuleFault(f"{self.name} can't be built with {given}: {sentence(error)}") from error
        if not isinstance(net, nn.Module):
            raise ModuleFault(f"{self.name} builds a {type(net).__name__}, not a torch.nn.Module")
        replace_norms(net, self.replaced)
        torch.backends.mha.set_fastpath_enabled(False)  # it looks into layers that are replaced, and can't be stacked
        for layer_name, layer in net.named_modules():
            if isinstance(layer, _BatchNorm) and layer.momentum is None:
                raise ModuleFault(f"{self.name}: {layer_name} has no momentum, so its running averages can't be kept")
            if isinstance(layer, nn.MultiheadAttention):
                layer.dropout = 0.0  # it draws random numbers that no lane could have for its own
        return net

    def _matching(self, patterns: str) -> list[nn.Module]:
        found = []
        names = [name for name, layer in self.net.named_modules() if name]
        for pattern in filter(None, patterns.split(",")):
            matching = [name for name in names if fnmatchcase(name, pattern)]
            if not matching:
                raise ModuleFault(f"{self.name} has no layer {pattern!r}; it has {_listed(names)}")
            found += [self.net.get_submodule(name) for name in matching]
        return found

    def begin(self, seed: int, draw: Draw | None) -> None:
        """Overwrite all weights and buffers with those that a new module has after ``torch.manual_seed(seed)``.

        Then ``draw`` those of linear layers and convolutions, whose biases become zero.
        """
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed)
            fresh = state_of(self._built())
        with torch.no_grad():
            for name, value in state_of(self.net).items():
                if name in fresh:  # what is not belongs to the dropout that was put in
                    value.copy_(fresh[name])
            for layer in self.net.modules():
                if draw is not None and isinstance(layer, nn.Linear | _ConvNd):
                    draw(layer.weight)
                    if layer.bias is not None:
                        layer.bias.zero_()

    def train(self, mode: bool = True) -> Foreign:
        """As `nn.Module.train`; the running statistics of frozen layers stay as they are."""
        super().train(mode)
        for layer in self.frozen:
            layer.eval()
        return self

    def lr_factors(self) -> dict[str, float]:
        """By what learning rates are multiplied, by name: ``layer_lr_decay`` for each layer that follows."""
        names = [name for name, _ in self.named_parameters()]
        groups = list(dict.fromkeys(map(self._group, names)))
        distance = {group: len(groups) - 1 - place for place, group in enumerate(groups)}
        return {name: self.decay ** distance[self._group(name)] for name in names}

    def _group(self, name: str) -> str:
        """The layer of a parameter: the one in a sequence or a list of layers, however deep, else one of the module."""
        layer, parts = self.net, name.split(".")[1:]
        for depth, part in enumerate(parts[:-1], start=1):
            layer = layer.get_submodule(part)
            if not isinstance(layer, nn.Sequential | nn.ModuleList | nn.TransformerEncoder):
                return ".".join(parts[:depth])
        return ".".join(parts[:1])

    def fitting(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of weights by the names of the module's own parameters those that it begins with, by ours.

        Raises:
            ModuleFault: One of a layer before the last is missing, or has another shape.
        """
        found = {f"net.{name}": value for name, value in weights.items()}
        own = {f"net.{name}": value for name, value in state_of(self.net).items()}
        fits = {name for name, value in own.items() if name in found and found[name].shape == value.shape}
        for name, _ in self.named_parameters():
            if name not in fits and not name.startswith(self.head):
                sizes = [tuple(each[name].shape) for each in (found, own) if name in each]
                what = f"of the shape {sizes[0]}, not {sizes[1]}" if name in found else "missing"
                raise ModuleFault(f"model.weights or model.start_from: {name.removeprefix('net.')} is {what}")
        return {name: found[name].to(own[name].dtype) for name in fits if own[name].dtype == torch.float32}

    def forward(self, x: Tensor) -> Tensor:
        """(b, ...) to (b, o): logits, or standardized predictions of a regression."""
        for layer in (*self.dropouts, *self.put):
            layer.calls = 0  # several calls of a layer drop different units
        out: Tensor = self.net(self.input_dropout(x))
        return out

    @cached_property
    def largest_activation(self) -> int:
        """Numbers that the largest layer holds for one example, found by trying."""
        largest = math.prod(self.inputs)

        def note(_: nn.Module, __: Any, out: Any) -> None:
            nonlocal largest
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())

        handles = [layer.register_forward_hook(note) for layer in self.net.modules()]
        training = self.training
        try:
            with torch.no_grad():
                self.eval()(torch.zeros(1, *self.inputs, device=next(self.parameters()).device))
        except Exception as error:  # theirs, of whatever kind
            raise ModuleFault(f"{self.name} raised in forward: {sentence(error)}") from error
        finally:
            self.train(training)
            for handle in handles:
                handle.remove()
        return largest


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def _head(net: nn.Module, outputs: int) -> str:
    """How the names of the last layer's parameters begin: the last layer with this many outputs, else the last one."""
    layers = [
        (name, layer) for name, layer in net.named_modules() if next(layer.parameters(recurse=False), None) is not None
    ]
    fitting = [name for name, layer in layers if getattr(layer, "out_features", None) == outputs]
    names = fitting or [name for name, _ in layers] or [""]
    return f"net.{names[-1]}." if names[-1] else "net."
