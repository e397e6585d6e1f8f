"""A recipe's update as lines of Python, for the snippet: loss, penalties, clipping, decay, optimizer, constraints.

They say what `workers.stack.update` does; a test runs both, update by update.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.report import batch_code
from service.report.network_code import number
from service.spec import Recipe


def optimizer(recipe: Recipe) -> str:
    """The expression that makes the optimizer of `model`."""
    match recipe.word("optimizer"):
        case "sgd":
            nesterov = ", nesterov=True" if recipe["nesterov"] and recipe.number("momentum") else ""
            return f"torch.optim.SGD(model.parameters(), lr=0.0, momentum={number(recipe.number('momentum'))}{nesterov})"
        case "adam" | "adamw":
            betas = f"({number(recipe.number('adam_beta1'))}, {number(recipe.number('adam_beta2'))})"
            return f"torch.optim.Adam(model.parameters(), lr=0.0, betas={betas})"
        case other:
            name = {"rmsprop": "RMSprop", "adagrad": "Adagrad", "adadelta": "Adadelta"}[other]
            return f"torch.optim.{name}(model.parameters(), lr=0.0)"


def update(recipe: Recipe, spec: Mapping[str, Any]) -> Iterator[str]:
    """`train_step`, one update of `model` on the batch `x`, `y`."""
    on = {name: number(recipe.number(name)) for name in _STRENGTHS if recipe.number(name)}
    balanced = ", class_weights" if batch_code.on(recipe, "class_weights") else ""
    yield f"def train_step(model, optimizer, x, y, lr{balanced}):"
    yield "    weights = [p for p in model.parameters() if p.ndim > 1]  # no penalty on biases and normalizations"
    yield from batch_code.changes(recipe)
    yield from _loss(recipe, spec)
    penalties = [code.format(on[name]) for name, code in _PENALTIES.items() if name in on]
    yield "    optimizer.zero_grad()"
    yield f"    ({' + '.join(['loss', *penalties])}).backward()" if penalties else "    loss.backward()"
    if "clip_value" in on:
        yield f"    nn.utils.clip_grad_value_(model.parameters(), {on['clip_value']})"
    if "clip_norm" in on:
        yield f"    nn.utils.clip_grad_norm_(model.parameters(), {on['clip_norm']})"
    if "weight_decay" in on:
        yield "    with torch.no_grad():"
        yield "        for w in weights:  # decoupled weight decay"
        yield f"            w.mul_(max(0.0, 1.0 - lr * {on['weight_decay']}))"
    yield "    for group in optimizer.param_groups:"
    yield '        group["lr"] = lr'
    yield "    optimizer.step()"
    yield from _constraints(recipe, on)
    yield "    return loss.item()"


def _loss(recipe: Recipe, spec: Mapping[str, Any]) -> Iterator[str]:
    mixed = batch_code.on(recipe, "mixup", "cutmix")
    if spec["task"] == "regression":
        if mixed:
            yield "    y = share * y + (1 - share) * y.roll(1, 0)"
        yield "    loss = F.mse_loss(model(x).squeeze(1), y)"
        return
    smoothing = recipe.number("label_smoothing")
    options = f", label_smoothing={number(smoothing)}" if smoothing else ""
    mean = ""
    if batch_code.on(recipe, "class_weights"):
        # A mean over the rows, where torch divides by the sum of their weights.
        options, mean = f'{options}, weight=class_weights, reduction="none"', ".mean()"
    if mixed:
        yield "    out = model(x)"
        yield f"    own, other = (F.cross_entropy(out, labels{options}){mean} for labels in (y, y.roll(1, 0)))"
        yield "    loss = share * own + (1 - share) * other"
    else:
        yield f"    loss = F.cross_entropy(model(x), y{options}){mean}"


_STRENGTHS = ("l1", "l2", "clip_value", "clip_norm", "weight_decay", "proximal_l1", "max_norm")
_PENALTIES = {
    "l1": "{} * sum(w.abs().sum() for w in weights)",
    "l2": "{} / 2 * sum(w.square().sum() for w in weights)",
}


def _constraints(recipe: Recipe, on: Mapping[str, str]) -> Iterator[str]:
    """What is done to the weights behind the optimizer's step."""
    if "proximal_l1" not in on and "max_norm" not in on:
        return
    yield "    with torch.no_grad():"
    if "proximal_l1" in on:
        yield "        for w in weights:"
        yield f"            w.copy_(F.softshrink(w, lr * {on['proximal_l1']}))"
    if "max_norm" in on:
        yield from _max_norm(recipe, on["max_norm"])


def _max_norm(recipe: Recipe, limit: str) -> Iterator[str]:
    if recipe.word("normalization") == "weight":
        yield "        for name, w in model.named_parameters():  # a unit's norm is its gain, original0"
        yield '            if w.ndim > 1 and not name.endswith("original1"):'
        yield f"                w.copy_(w.renorm(2, 0, {limit}))"
    else:
        yield "        for w in weights:"
        yield f"            w.copy_(w.renorm(2, 0, {limit}))"
