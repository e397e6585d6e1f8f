"""Running a snippet, and bringing its network to the weights of one of the service's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from service.report.snippet import snippet
from service.spec import Recipe
from workers.plain.network import build
from workers.stack.stack import Stack

EPOCHS = 6


def spec(task: str = "classification", **changes: Any) -> dict[str, Any]:
    stopping = {"patience": 3, "min_delta": 0.0, "restore_best": True, "monitor": "metric"}
    metric = "accuracy" if task == "classification" else "rmse"
    whole = {"task": task, "metric": metric, "budget": {"epochs": EPOCHS}, "early_stopping": stopping}
    return {**whole, **changes}


def program(setting: Recipe, of: dict[str, Any]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(snippet(setting, of), "snippet", "exec"), names)
    return names


def optimizer_of(text: str, model: nn.Module) -> Any:
    (line,) = [line for line in text.splitlines() if line.startswith("    optimizer = ")]
    return eval(line.removeprefix("    optimizer = "), {"torch": torch, "model": model})


def counterparts(ours: nn.Module, theirs: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Parameters and statistics of the service's network, each with that of the snippet's; both have the same layers."""
    with_state = [list(_with_state(model)) for model in (ours, theirs)]
    for mine, other in zip(*with_state, strict=True):
        weight_norm = {}
        if hasattr(other, "parametrizations"):
            parts = other.parametrizations.weight
            weight_norm = {"weight_g": parts.original0, "weight_v": parts.original1}
        own = [*mine.named_parameters(recurse=False), *mine.named_buffers(recurse=False)]
        for name, value in own:
            if name != "num_batches_tracked":
                found = weight_norm[name] if name in weight_norm else getattr(other, name)
                assert found.shape == value.shape
                yield value, found


def _with_state(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if any(True for _ in module.parameters(recurse=False)) and not isinstance(module, ParametrizationList):
            yield module


@torch.no_grad()
def adopt(theirs: nn.Module, ours: nn.Module) -> None:
    for value, found in counterparts(ours, theirs):
        found.copy_(value)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


def network_of(stack: Stack) -> nn.Module:
    """The service's network in the first lane of a stack."""
    model = build(stack.model.shape)
    model.load_state_dict(stack.model.state_dict(stack.state.weights[0], stack.state.stats[0]), strict=False)
    return model
