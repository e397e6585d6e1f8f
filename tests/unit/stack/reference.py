"""The training of one lane written as anybody would in plain PyTorch: a module, torch.optim, penalties in the loss.

Only the random numbers (order, masks, noise) are the stack's own, for without them no two trainings are the same.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.stats import beta
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from service.spec import Recipe
from tests.unit.stack.runs import CLASSES, ROWS, data
from workers.models import build_model, initialize
from workers.models.layers import LaneDropout
from workers.stack.hashing import combine, draw, permutations, uniform
from workers.stack.schedules import LaneSchedule
from workers.stack.stack import _ORDER, StackKey

MIXUP, INPUT_NOISE, FEATURE_MASKING = -3, -2, -1


def alone_in_torch(setting: Recipe, seed: int, task: str, epochs: int) -> tuple[nn.Module, list[float]]:
    """The module to evaluate behind all epochs, and the mean training loss of each."""
    on = data(task=task)
    module = build_model(StackKey.of(setting, on.inputs, on.outputs).shape)
    initialize(module, setting, seed)
    dropouts = [layer for layer in module.modules() if isinstance(layer, LaneDropout)]
    rates = [setting.number("input_dropout"), *setting.layers("dropout", len(dropouts) - 1)]
    for layer, rate in zip(dropouts, rates, strict=True):
        layer.rate.fill_(rate)
    optimizer = optimizer_of(module, setting)
    averaged = average_of(module, setting)
    schedule = LaneSchedule(setting, epochs)
    updates = -(-ROWS // setting.integer("batch_size"))
    weights = class_weights_of(setting, on.y[on.train[0]]) if task == "classification" else None
    losses, update = [], 0
    for epoch in range(epochs):
        order, total = order_of(seed, epoch, updates), 0.0
        for rows, rate in zip(order.chunk(updates), schedule.rates(epoch, updates), strict=True):
            module.train()
            base = combine(torch.tensor(seed, dtype=torch.int32), torch.tensor(update, dtype=torch.int32))
            for index, layer in enumerate(dropouts):
                layer.key.copy_(combine(base, index + 1))
            loss = batch_loss(module, setting, base, on.x[rows], on.y[rows], weights)
            descend(module, optimizer, setting, loss, float(rate))
            total += loss.item()
            update += 1
            if setting.word("averaging") == "ema":
                averaged.update_parameters(module)
        losses.append(total / updates)
        if setting.word("averaging") == "swa" and epoch >= round(setting.number("swa_start") * epochs):
            averaged.update_parameters(module)
    return (module if setting.word("averaging") == "none" else averaged.module), losses


def optimizer_of(module: nn.Module, setting: Recipe) -> torch.optim.Optimizer:
    """The optimizer, decaying weights but neither biases nor gains."""
    weights = [p for p in module.parameters() if p.ndim == 2]
    others = [p for p in module.parameters() if p.ndim != 2]
    if setting.word("optimizer") == "sgd":
        momentum, nesterov = setting.number("momentum"), setting.flag("nesterov")
        return torch.optim.SGD(module.parameters(), momentum=momentum, nesterov=nesterov)
    decay = setting.number("weight_decay")
    return torch.optim.AdamW([{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}])


def average_of(module: nn.Module, setting: Recipe) -> AveragedModel:
    """Torch's average of weights and buffers: exponential, or the mean of all that it is shown."""
    if setting.word("averaging") == "ema":
        decay = get_ema_multi_avg_fn(setting.number("ema_decay"))  # type: ignore[no-untyped-call]
        return AveragedModel(module, multi_avg_fn=decay, use_buffers=True)
    return AveragedModel(module, use_buffers=True)


def order_of(seed: int, epoch: int, updates: int) -> Tensor:
    """The rows of an epoch, its last batch filled with the first ones."""
    key = combine(combine(torch.tensor([seed], dtype=torch.int32), _ORDER), torch.tensor([epoch], dtype=torch.int32))
    order = permutations(key, ROWS)[0]
    return torch.cat([order, order[: updates * -(-ROWS // updates) - ROWS]])


def class_weights_of(setting: Recipe, labels: Tensor) -> Tensor:
    """Weights of the classes, so far as the setting wants them, the balanced ones being scikit-learn's."""
    balanced = torch.ones(CLASSES)
    present = labels.unique().numpy()  # type: ignore[no-untyped-call]
    balanced[present] = torch.tensor(compute_class_weight("balanced", classes=present, y=labels.numpy())).float()
    return 1.0 + setting.number("class_weights") * (balanced - 1.0)


def batch_loss(module: nn.Module, setting: Recipe, base: Tensor, x: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """The loss of a batch that is mixed, noisy, masked, and smoothly labelled."""
    target = F.one_hot(y, CLASSES).float() if y.dtype == torch.int64 else y
    if alpha := setting.number("mixup"):
        u = uniform(draw(combine(base, MIXUP), torch.tensor(0, dtype=torch.int32)))
        share = float(beta.ppf(u.item(), alpha, alpha))
        x, target = (share * both + (1 - share) * both.roll(1, 0) for both in (x, target))
    element = torch.arange(x.numel(), dtype=torch.int32).view(x.shape)
    key = combine(base, INPUT_NOISE)
    radius, angle = uniform(draw(key, 2 * element)), uniform(draw(key, 2 * element + 1))
    x = x + setting.number("input_noise") * (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()
    x = torch.where(uniform(draw(combine(base, FEATURE_MASKING), element)) < setting.number("feature_masking"), 0.0, x)
    out = module(x)
    if y.dtype == torch.int64:
        return F.cross_entropy(out, target, weights, label_smoothing=setting.number("label_smoothing"))
    return F.mse_loss(out[:, 0], target)


def descend(module: nn.Module, optimizer: torch.optim.Optimizer, setting: Recipe, loss: Tensor, lr: float) -> None:
    """One step with all penalties, clips and constraints."""
    weights = [p for p in module.parameters() if p.ndim == 2]
    l1 = sum((w.abs().sum() for w in weights), torch.zeros(()))
    l2 = sum((w.square().sum() for w in weights), torch.zeros(()))
    optimizer.zero_grad()
    (loss + setting.number("l1") * l1 + setting.number("l2") / 2 * l2).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_value_(module.parameters(), setting.number("clip_value") or torch.inf)
    nn.utils.clip_grad_norm_(module.parameters(), setting.number("clip_norm") or torch.inf)
    for group in optimizer.param_groups:
        group["lr"] = lr
    if setting.word("optimizer") == "sgd":
        with torch.no_grad():  # decoupled decay, which torch.optim.SGD has not
            for w in weights:
                w.mul_(1 - lr * setting.number("weight_decay"))
    optimizer.step()
    constrain(module, setting, lr)


@torch.no_grad()
def constrain(module: nn.Module, setting: Recipe, lr: float) -> None:
    """What follows an optimizer's step: soft-thresholding, then the largest norm of a unit's incoming weights."""
    for name, weight in module.named_parameters():
        if weight.ndim == 2:
            weight.copy_(F.softshrink(weight, lr * setting.number("proximal_l1")))
            if setting.number("max_norm") and not name.endswith("weight_v"):  # weight normalization's norm is its gain
                weight.copy_(torch.renorm(weight, 2, 0, setting.number("max_norm")))
