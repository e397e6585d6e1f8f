"""One optimizer update of one network: loss, penalties, clipping, decay, step, constraints, with torch's own tools.

Weights are parameters of two or more dimensions; penalties, decay and constraints leave biases and normalizations alone.
References: Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019); Parikh and Boyd, "Proximal
algorithms" (2014); Srivastava et al., "Dropout", JMLR 15 (2014) for the largest norm; King and Zeng, "Logistic Regression
in Rare Events Data" (2001) for class weights; Lin et al., "Focal loss" (ICCV 2017); Huber, "Robust estimation of a location
parameter" (1964); Koenker and Bassett, "Regression quantiles" (1978).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batches import changed
from .chance import Chance
from .members import flattened
from .network import head_of, lr_factors

SUREST = 1e-6
"""The smallest 1 − p of the focal loss, whose slope is infinite at 0 for γ < 1."""


def optimizer_of(network: nn.Module, recipe: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Torch's optimizer, without weight decay, which `update` applies for every rule alike; so adam and adamw are one.

    Its groups have a ``factor`` of the learning rate.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    factors = lr_factors(network)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(factors[name], []).append(parameter)
    parameters: Parameters = [{"params": own, "factor": factor} for factor, own in groups.items()]
    return OPTIMIZERS[recipe["optimizer"]](parameters, recipe)


Parameters = list[dict[str, Any]]


def _sgd(parameters: Parameters, recipe: Mapping[str, Any]) -> torch.optim.Optimizer:
    momentum, nesterov = recipe["momentum"], bool(recipe["nesterov"] and recipe["momentum"])
    return torch.optim.SGD(parameters, lr=0.0, momentum=momentum, nesterov=nesterov)


def _adam(parameters: Parameters, recipe: Mapping[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.0, betas=(recipe["adam_beta1"], recipe["adam_beta2"]))


OPTIMIZERS: Mapping[str, Callable[[Parameters, Mapping[str, Any]], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adam,
    "rmsprop": lambda parameters, recipe: torch.optim.RMSprop(parameters, lr=0.0),
    "adagrad": lambda parameters, recipe: torch.optim.Adagrad(parameters, lr=0.0),
    "adadelta": lambda parameters, recipe: torch.optim.Adadelta(parameters, lr=0.0),
}
"""By the words of the setting `optimizer`."""


def task_of(y: Tensor) -> str:
    """The task whose targets these are: numbers (r,) or (r, t), classes (r,) int64, or labels (r, t) int64, 0 and 1."""
    if y.is_floating_point():
        return "regression"
    return "classification" if y.ndim == 1 else "multilabel"


def class_weights(y: Tensor, classes: int, recipe: Mapping[str, Any]) -> Tensor | None:
    """Weights of the classes in the loss: as far towards `balanced` as the recipe wants; None for all alike."""
    blend = recipe.get("class_weights")
    return 1.0 + blend * (balanced(y, classes) - 1.0) if blend else None


def balanced(y: Tensor, classes: int) -> Tensor:
    """(classes,) weights n / (present classes · rows of the class), scikit-learn's "balanced", of class indices ``y`` (n,).

    Of labels ``y`` (n, t): (2, t), for rows without and with each label, as two classes. A class without training rows gets
    the weight 1: it takes no part in training, but its weight must be finite.
    """
    if y.ndim == 2:
        return torch.stack([balanced(label, 2) for label in y.T], dim=1)
    counts = torch.bincount(y, minlength=classes).double()
    weights = len(y) / ((counts > 0).sum() * counts.clamp(min=1.0))
    return torch.where(counts > 0, weights, 1.0).float()


def update(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Mapping[str, Any],
    batch: tuple[Tensor, Tensor],
    *,
    lr: float,
    chance: Chance,
    number: int = 0,
    balance: Tensor | None = None,
    weights: Tensor | None = None,
    anchor: Mapping[str, Tensor] | None = None,
) -> float:
    """Train ``network`` on one ``batch`` of examples (b, ...) and targets (b,), or (b, t) of several, in place.

    Args:
        network: In training mode.
        optimizer: As `optimizer_of` makes it.
        recipe: Values by setting; what it lacks is off.
        batch: The examples, and class indices, labels or standardized numbers (see `task_of`).
        lr: The learning rate of this update.
        chance: Gives the random numbers.
        number: How many updates came before.
        balance: As `class_weights` gives it.
        weights: (b,) by which the losses are multiplied; None for all alike.
        anchor: The weights that fine-tuning began with, by name.

    Returns:
        The loss before the update, without penalties.
    """
    optimizer.zero_grad()
    x, y = batch
    parts = min(int(recipe.get("micro_batches", 1)), len(x))
    loss = 0.0
    w = torch.ones(len(x), device=x.device) if weights is None else weights
    for part, own in enumerate(zip(x.tensor_split(parts), y.tensor_split(parts), w.tensor_split(parts), strict=True)):
        chance.begin(number, part if parts > 1 else None)
        found = _loss(network, recipe, *own, chance, balance) * (len(own[0]) / len(x))
        found.backward()  # type: ignore[no-untyped-call]
        loss += found.item()
    _descend(network, optimizer, recipe, lr, anchor or {})
    return loss


def _loss(
    network: nn.Module,
    recipe: Mapping[str, Any],
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    chance: Chance,
    balance: Tensor | None,
) -> Tensor:
    """The mean loss of a batch after all changes of its examples and labels."""
    x, share = changed(x, recipe, chance, getattr(network, "sources", ()))
    with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.get("precision") == "bfloat16"):
        out = network(x)
    out = out.float()
    if y.is_floating_point():
        if share is not None:
            pairs = [(own, own.roll(1, 0)) for own in (y, weights)]
            y, weights = (torch.where(share < 1.0, share * own + (1.0 - share) * other, own) for own, other in pairs)
        return (flattened(out, weights)[1] * _errors(*flattened(out, y), recipe)).mean()

    def of(labels: Tensor, own: Tensor) -> Tensor:
        # A mean over the rows, where torch's own mean divides by the sum of their weights.
        return (flattened(out, own)[1] * _surprises(*flattened(out, labels), recipe, balance)).mean()

    return of(y, weights) if share is None else share * of(y, weights) + (1.0 - share) * of(y.roll(1, 0), weights.roll(1, 0))


def _errors(out: Tensor, target: Tensor, recipe: Mapping[str, Any]) -> Tensor:
    """(b,) squared errors, those of Huber, or pinball losses, of outputs (b, 1); of several targets (b, t) their means."""
    if target.ndim == 2:
        return torch.stack([_errors(out[:, [place]], own, recipe) for place, own in enumerate(target.T)]).mean(0)
    if level := recipe.get("quantile"):
        return pinball(out.squeeze(1) - target, level)
    if delta := recipe.get("huber_delta"):  # torch's is half of the squared error
        return 2.0 * F.huber_loss(out.squeeze(1), target, delta=delta, reduction="none")
    return F.mse_loss(out.squeeze(1), target, reduction="none")


def pinball(error: Tensor, level: float | Tensor) -> Tensor:
    """The losses of errors, prediction − target, whose smallest mean is at the target's quantile of a ``level``."""
    return torch.maximum(-level * error, (1.0 - level) * error)


def _surprises(out: Tensor, labels: Tensor, recipe: Mapping[str, Any], balance: Tensor | None) -> Tensor:
    """(b,) cross-entropies of outputs (b, classes); of labels (b, t) the means of theirs, each with two classes."""
    if labels.ndim == 2:
        each = zip(out.T, labels.T, [None] * out.shape[1] if balance is None else balance.T, strict=True)
        pairs = [_surprises(torch.stack([torch.zeros_like(z), z], 1), own, recipe, by) for z, own, by in each]
        return torch.stack(pairs).mean(0)
    smoothing, gamma = recipe.get("label_smoothing", 0.0), recipe.get("focal_gamma", 0.0)
    losses = F.cross_entropy(out, labels, balance, reduction="none", label_smoothing=smoothing)
    if gamma:
        sure = F.cross_entropy(out, labels, balance, reduction="none") * (1.0 - smoothing)
        unsure = 1.0 - out.softmax(1).gather(1, labels[:, None]).squeeze(1)
        losses = losses - sure + unsure.clamp(min=SUREST) ** gamma * sure
    return losses


def _descend(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Mapping[str, Any],
    lr: float,
    anchor: Mapping[str, Tensor],
) -> None:
    """Penalties and clipping of the gradient, decoupled decay, the optimizer's step, constraints."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trained if parameter.ndim > 1]
    _penalize(network, recipe, weights, anchor)
    if limit := recipe.get("clip_value"):
        nn.utils.clip_grad_value_(trained, limit)
    if limit := recipe.get("clip_norm"):
        nn.utils.clip_grad_norm_(trained, limit)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
    if decay := recipe.get("weight_decay"):
        with torch.no_grad():
            for weight, rate in _weights(optimizer):
                weight.mul_(max(0.0, 1.0 - rate * decay))
    optimizer.step()
    _constrain(network, optimizer, recipe)


def _penalize(
    network: nn.Module, recipe: Mapping[str, Any], weights: Sequence[Tensor], anchor: Mapping[str, Tensor]
) -> None:
    """Add the gradients of the penalties; that of `l2_sp` draws to ``anchor``, before the last layer."""
    if l1 := recipe.get("l1"):
        for w in weights:
            w.grad = _gradient(w) + l1 * w.detach().sign()
    if l2 := recipe.get("l2"):
        for w in weights:
            w.grad = _gradient(w) + l2 * w.detach()
    if strength := recipe.get("l2_sp"):
        for name, w in network.named_parameters():
            if w.requires_grad and w.ndim > 1 and name in anchor and not name.startswith(head_of(network)):
                w.grad = _gradient(w) + strength * (w.detach() - anchor[name])


def _weights(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, float]]:
    """The weights in training, each with its learning rate of this update."""
    for group in optimizer.param_groups:
        yield from ((w, group["lr"]) for w in group["params"] if w.ndim > 1)


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


@torch.no_grad()
def _constrain(network: nn.Module, optimizer: torch.optim.Optimizer, recipe: Mapping[str, Any]) -> None:
    """What follows the step: soft-thresholding, then the largest norm of a unit's incoming weights."""
    if threshold := recipe.get("proximal_l1"):
        for w, rate in _weights(optimizer):
            w.copy_(F.softshrink(w, rate * threshold))
    if limit := recipe.get("max_norm"):
        for name, weight in network.named_parameters():
            # Under weight normalization a unit's norm is its gain, `weight_g`.
            if weight.ndim > 1 and weight.requires_grad and not name.endswith("weight_v"):
                weight.copy_(weight.renorm(2, 0, limit))
