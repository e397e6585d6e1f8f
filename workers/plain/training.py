"""One training run in plain sight: a recipe, a network, rows; epochs with a schedule, averaging and early stopping.

    network = build(shape, dropout_of(recipe))
    initialize(network, recipe, seed, spread(x))
    trained = train(network, recipe, Rows(x, y, x_valid, y_valid), epochs=100, patience=20, seed=seed)

A lane of a stack does the same, update for update; the tests hold both against each other. Shapes: `n` training rows, `m`
validation rows; x float32 (rows, ...) as preprocessing gives it, y (rows,) int64 class indices or float32 standardized
numbers; of several targets (rows, t) int64 labels or float32 standardized numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .chance import Chance
from .network import Average as AverageOfNetworks
from .network import head_of
from .schedules import Schedule, ends_cycle, strength
from .update import class_weights, optimizer_of, pinball, task_of, update


@dataclass(frozen=True)
class Rows:
    """Training and validation rows, on one device; ``weights`` (n,) with the mean 1 multiply the losses of training rows."""

    x: Tensor
    y: Tensor
    x_valid: Tensor
    y_valid: Tensor
    weights: Tensor | None = None


Watch = Callable[[nn.Module, Rows, Mapping[str, Any]], float]
"""What early stopping looks at, lower being better, of a network in eval mode that is trained by a recipe."""


@dataclass
class Trained:
    """``network`` in eval mode, with the weights of ``best_epoch`` (0-based), of equally good ones the last; mean training
    loss and watched value by epoch.
    """

    network: nn.Module
    best_epoch: int = -1
    losses: list[float] = field(default_factory=list)
    watched: list[float] = field(default_factory=list)


def train(
    network: nn.Module,
    recipe: Mapping[str, Any],
    rows: Rows,
    *,
    epochs: int,
    stop_after: int | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    restore_best: bool = True,
    watch: Watch | None = None,
    seed: int = 0,
    chance: Chance | None = None,
) -> Trained:
    """Train ``network`` by ``recipe``; the last batch of an epoch is filled up with the epoch's first rows.

    Args:
        network: With its initial weights, as `initialize` or an earlier training left them.
        recipe: Values by setting: `lr`, `batch_size`, `optimizer` and whatever else is on.
        rows: What it is trained and watched on.
        epochs: The largest number of epochs, for which the schedules are made.
        stop_after: Epochs after which training ends nevertheless.
        patience: Epochs without a watched value better by more than ``min_delta`` before training ends; None for never.
        min_delta, restore_best: With ``patience``: see there; and whether the best weights are kept rather than the last.
        watch: What early stopping looks at; the validation loss if omitted.
        seed: Of the random numbers.
        chance: Gives the random numbers instead.
    """
    chance = chance or Chance(seed, rows.x.device)
    with torch.no_grad():
        outputs = int(network.eval()(rows.x_valid[:1]).shape[1])
    balance = None if rows.y.is_floating_point() else class_weights(rows.y, outputs, recipe)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            parameter.requires_grad_(recipe.get("fine_tune") != "head" or name.startswith(head_of(network)))
    anchor = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer, schedule = optimizer_of(network, recipe), Schedule(recipe, epochs, seed)
    average = Average(network, recipe, epochs)
    updates = math.ceil(len(rows.x) / recipe["batch_size"])
    trained, best, kept, stale = Trained(network), math.inf, None, 0
    past: list[nn.Module] = []
    task = task_of(rows.y)
    strengths = Strengths(network, recipe, epochs)
    for epoch in range(min(epochs, stop_after or epochs)):
        if recipe.get("snapshots") and ends_cycle(recipe, epoch - 1):
            past.append(copy.deepcopy(average.shown).eval())
        _to_training(network, recipe)
        now = strengths.of(epoch)
        order = chance.order(epoch, len(rows.x))
        order = torch.cat([order, order[: updates * math.ceil(len(order) / updates) - len(order)]])
        loss = 0.0
        for number, (chosen, lr) in enumerate(zip(order.chunk(updates), schedule.rates(epoch, updates), strict=True)):
            batch, done = (rows.x[chosen], rows.y[chosen]), epoch * updates + number
            weights = None if rows.weights is None else rows.weights[chosen]
            how: dict[str, Any] = {"lr": float(lr), "chance": chance, "number": done, "balance": balance, "anchor": anchor}
            loss += update(network, optimizer, now, batch, weights=weights, **how)
            average.after_update()
        average.after_epoch(epoch)
        trained.network = together([average.shown, *past], task).eval()
        schedule.observe(epoch, validation_loss(trained.network, rows, recipe))
        watched = (watch or validation_loss)(trained.network, rows, recipe)
        trained.losses.append(loss / updates)
        trained.watched.append(watched)
        better = watched < best - (min_delta if patience else 0.0)
        as_good = watched == best
        best, stale = (watched, 0) if better else (best, stale + 1)
        if better or as_good or not (patience and restore_best):
            kept, trained.best_epoch = (copy.deepcopy(trained.network.state_dict()), len(past)), epoch
        if patience and stale >= patience:
            break
    if kept is not None:
        trained.network = together([average.shown, *past[: kept[1]]], task).eval()
        trained.network.load_state_dict(kept[0])
    return trained


def together(networks: Sequence[nn.Module], task: str) -> nn.Module:
    """The average of the predictions of a network and of its snapshots, or the network if it has none."""
    return networks[0] if len(networks) == 1 else AverageOfNetworks(networks, task)


@torch.no_grad()
def validation_loss(network: nn.Module, rows: Rows, recipe: Mapping[str, Any]) -> float:
    """The loss on the validation rows: cross-entropy, or of standardized numbers the mean squared error or pinball loss;
    the mean over several targets.
    """
    match task_of(rows.y_valid):
        case "classification":
            return float(F.cross_entropy(network(rows.x_valid), rows.y_valid))
        case "multilabel":
            return float(F.binary_cross_entropy_with_logits(network(rows.x_valid), rows.y_valid.float()))
    level, error = recipe.get("quantile"), _errors(network, rows)
    return float((pinball(error, level) if level else error.square()).mean())


@torch.no_grad()
def _errors(network: nn.Module, rows: Rows) -> Tensor:
    """(m,), or (m, t) of several targets."""
    out: Tensor = network(rows.x_valid)
    return out.reshape(rows.y_valid.shape) - rows.y_valid


@torch.no_grad()
def _accuracy(network: nn.Module, rows: Rows, recipe: Mapping[str, Any]) -> float:
    out = network(rows.x_valid)
    if rows.y_valid.ndim == 2:
        return -float(((out > 0) == rows.y_valid).all(1).float().mean())
    return -float((out.argmax(1) == rows.y_valid).float().mean())


def _to_training(network: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Training mode; where only the last layer is trained, normalizations keep their running statistics."""
    network.train()
    if recipe.get("fine_tune") == "head":
        for module in network.modules():
            if hasattr(module, "running_mean"):
                module.eval()


WATCHES: Mapping[str, Watch] = {
    "loss": validation_loss,
    "log_loss": validation_loss,
    "accuracy": _accuracy,
    "rmse": lambda network, rows, recipe: float(_errors(network, rows).square().mean(0).sqrt().mean()),
    "mae": lambda network, rows, recipe: float(_errors(network, rows).abs().mean()),
    "pinball": validation_loss,
}


class Strengths:
    """Dropout and weight decay by their schedules."""

    def __init__(self, network: nn.Module, recipe: Mapping[str, Any], epochs: int) -> None:
        layers: list[Any] = [layer for layer in network.modules() if hasattr(layer, "p")]
        self._dropouts = [(layer, float(layer.p)) for layer in layers]
        self._recipe, self._epochs = recipe, epochs

    def of(self, epoch: int) -> dict[str, Any]:
        """Set the rates of the network's dropout layers to those of ``epoch`` (0-based); the recipe with its decay."""
        for layer, rate in self._dropouts:
            layer.p = rate * strength(self._recipe, "dropout_schedule", epoch, self._epochs)
        factor = strength(self._recipe, "weight_decay_schedule", epoch, self._epochs)
        return {**self._recipe, "weight_decay": self._recipe.get("weight_decay", 0.0) * factor}


class Average:
    """The average of the weights (and running statistics) that a recipe evaluates and keeps, or the weights themselves.

    Reference: Izmailov et al., "Averaging weights leads to wider optima and better generalization" (UAI 2018).
    """

    def __init__(self, network: nn.Module, recipe: Mapping[str, Any], epochs: int) -> None:
        self._network = network
        self._kind = recipe.get("averaging", "none")
        self._begin = min(epochs - 1, round(recipe.get("swa_start", 0.0) * epochs))
        if self._kind == "ema":
            decay = get_ema_multi_avg_fn(recipe["ema_decay"])  # type: ignore[no-untyped-call]
            self._averaged = AveragedModel(network, multi_avg_fn=decay, use_buffers=True)
        elif self._kind == "swa":
            self._averaged = AveragedModel(network, use_buffers=True)
        elif self._kind != "none":
            raise KeyError(f"averaging is {self._kind!r}")

    @property
    def shown(self) -> nn.Module:
        """What is evaluated and kept."""
        return self._network if self._kind == "none" else self._averaged.module

    def after_update(self) -> None:
        """Take in the weights after an update."""
        if self._kind == "ema":
            self._averaged.update_parameters(self._network)

    def after_epoch(self, epoch: int) -> None:
        """Take in the weights after an epoch; until averaging begins they are the average."""
        if self._kind != "swa":
            return
        if epoch <= self._begin:
            self._averaged = AveragedModel(self._network, use_buffers=True)
        self._averaged.update_parameters(self._network)
