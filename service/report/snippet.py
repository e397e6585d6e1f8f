"""The winning recipe as a PyTorch program of its own, ready to be pasted: network, update and training loop.

It does what a lane of a stack does, update for update; a test runs it beside one. What it does not know it does not leave
out silently: `snippet` refuses a recipe with a setting that this module has no line for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from service.report.cnn_code import cnn
from service.report.network_code import mlp, number
from service.report.schedule_code import SCHEDULES
from service.report.sequence_code import sequence
from service.spec import SETTINGS, Recipe

_KNOWN = {
    *("family", "widths", "width", "depth", "activation", "embedding", "normalization", "normalization_groups"),
    *("normalization_position", "skip_connections", "blocks", "shortcuts", "downsampling", "cell", "heads", "pooling"),
    *("dropout", "input_dropout", "head_dropout", "init", "init_distribution", "init_std"),
    *("l1", "l2", "weight_decay", "proximal_l1", "max_norm", "clip_norm", "clip_value"),
    *("optimizer", "momentum", "nesterov", "adam_beta1", "adam_beta2", "lr", "batch_size"),
    *("lr_schedule", "warmup_epochs"),
}
_NETWORKS: Mapping[str, Callable[[Recipe], Iterator[str]]] = {"mlp": mlp, "cnn": cnn, "sequence": sequence}
_WATCHED = {
    "accuracy": "-(model(x_valid).argmax(1) == y_valid).float().mean()",
    "rmse": "(model(x_valid).squeeze(1) - y_valid).square().mean().sqrt()",
    "mae": "(model(x_valid).squeeze(1) - y_valid).abs().mean()",
}


class NoSnippet(ValueError):
    """The recipe needs more than the snippet can say; the message names it."""


def snippet(recipe: Recipe, spec: Mapping[str, Any]) -> str:
    """The program.

    Args:
        recipe: What to train with.
        spec: The study's spec, for the task, the epochs and early stopping.

    Raises:
        NoSnippet: There is a setting, or a family of networks, that this module does not cover.
    """
    _refuse_unknown(recipe)
    parts = [
        _head(spec),
        _NETWORKS[recipe.word("family")](recipe),
        _rate(recipe),
        _update(recipe, spec),
        _training(recipe, spec),
    ]
    return "\n\n\n".join("\n".join(part) for part in parts) + "\n"


def _refuse_unknown(recipe: Recipe) -> None:
    if recipe.word("family") not in _NETWORKS:
        raise NoSnippet(f"there is no snippet for networks of the family {recipe.word('family')}")
    schedule = recipe.word("lr_schedule")
    if schedule not in SCHEDULES:
        raise NoSnippet(f"there is no snippet for the schedule {schedule}")
    known = _KNOWN | set(SCHEDULES[schedule].settings)
    # What is at its neutral value needs no line.
    unknown = [name for name in recipe.said() if name not in known and recipe[name] != SETTINGS[name].neutral]
    if unknown:
        raise NoSnippet(f"there is no snippet with {', '.join(unknown)}")


def _head(spec: Mapping[str, Any]) -> Iterator[str]:
    yield "import copy"
    yield "import math"
    yield "import random"
    yield ""
    yield "import torch"
    yield "import torch.nn.functional as F"
    yield "from torch import nn"
    yield ""
    yield f"EPOCHS = {spec['budget']['epochs']}"


def _rate(recipe: Recipe) -> Iterator[str]:
    """The learning rate of every update."""
    lr, warmup = number(recipe.number("lr")), recipe.integer("warmup_epochs")
    schedule = SCHEDULES[recipe.word("lr_schedule")]
    yield "def learning_rate(epoch, update, updates, scale=1.0):"
    yield f'    """Of update `update` of `updates` in epoch `epoch`, all from 0; schedule: {recipe.word("lr_schedule")}."""'
    if warmup:
        yield f"    warmup = {warmup}"
        yield "    if epoch < warmup:"
        yield f"        return {lr} * (epoch * updates + update + 1) / (warmup * updates)"
        yield "    epoch, epochs = epoch - warmup, max(1, EPOCHS - warmup)"
    else:
        yield "    epochs = EPOCHS"
    yield from (f"    {line}" for line in schedule.lines(recipe))
    yield f"    return {lr} * factor"


def _optimizer(recipe: Recipe) -> str:
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


def _update(recipe: Recipe, spec: Mapping[str, Any]) -> Iterator[str]:
    loss = "F.cross_entropy(model(x), y)" if spec["task"] == "classification" else "F.mse_loss(model(x).squeeze(1), y)"
    on = {name: number(recipe.number(name)) for name in _STRENGTHS if recipe.number(name)}
    yield "def train_step(model, optimizer, x, y, lr):"
    yield "    weights = [p for p in model.parameters() if p.ndim > 1]  # no penalty on biases and normalizations"
    yield f"    loss = {loss}"
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


def _training(recipe: Recipe, spec: Mapping[str, Any]) -> Iterator[str]:
    stopping = spec.get("early_stopping")
    plateau = recipe.word("lr_schedule") == "plateau"
    levels = ", levels" if recipe.integer("embedding") else ""
    yield f"def train(x_train, y_train, x_valid, y_valid, outputs{levels}):"
    yield f'    """{_INPUTS[recipe.word("family")]}; {_TARGETS[spec["task"]]}"""'
    yield f"    model = make_model(x_train.shape[{2 if recipe.word('family') == 'sequence' else 1}], outputs{levels})"
    yield f"    optimizer = {_optimizer(recipe)}"
    yield f"    updates = math.ceil(len(x_train) / {recipe.integer('batch_size')})"
    yield "    batch = math.ceil(len(x_train) / updates)"
    yield "    best, best_state, stale = math.inf, None, 0"
    if plateau:
        yield "    scale, lowest, waited = 1.0, math.inf, 0"
    yield "    for epoch in range(EPOCHS):"
    yield "        model.train()"
    yield "        order = torch.randperm(len(x_train))"
    yield "        order = torch.cat([order, order[: updates * batch - len(order)]])"
    yield "        for update, rows in enumerate(order.split(batch)):"
    yield f"            lr = learning_rate(epoch, update, updates{', scale' if plateau else ''})"
    yield "            train_step(model, optimizer, x_train[rows], y_train[rows], lr)"
    yield "        model.eval()"
    yield "        with torch.no_grad():"
    yield f"            watched = ({_watched(spec)}).item()"
    if plateau:
        yield f"            valid_loss = {_VALID_LOSS[spec['task']]}.item()"
        yield from _plateau(recipe)
    if stopping:
        yield f"        if watched < best - {number(float(stopping['min_delta']))}:"
        yield "            best, best_state, stale = watched, copy.deepcopy(model.state_dict()), 0"
        yield "        else:"
        yield "            stale += 1"
        yield f"        if stale >= {stopping['patience']}:"
        yield "            break"
        if stopping["restore_best"]:
            yield "    model.load_state_dict(best_state)"
    yield "    return model.eval()"


_INPUTS = {
    "mlp": "x: float32, numbers standardized and categories one-hot",
    "cnn": "x: float32 (rows, channels, height, width), channels standardized",
    "sequence": "x: float32 (rows, steps, channels), channels standardized, NaN behind the end of a series",
}
_TARGETS = {"classification": "y: class indices, int64.", "regression": "y: standardized, float32."}
_VALID_LOSS = {
    "classification": "F.cross_entropy(model(x_valid), y_valid)",
    "regression": "F.mse_loss(model(x_valid).squeeze(1), y_valid)",
}


def _watched(spec: Mapping[str, Any]) -> str:
    """What early stopping watches, lower being better; the loss stands in for metrics that are no one-liner."""
    watched = (spec.get("early_stopping") or {}).get("monitor", "metric")
    metric = spec["metric"] if watched == "metric" else watched
    return _WATCHED.get(metric, _VALID_LOSS[spec["task"]])


def stand_in(spec: Mapping[str, Any]) -> str | None:
    """The metric that the study's early stopping watched where the snippet watches the loss instead."""
    watched = (spec.get("early_stopping") or {}).get("monitor", "metric")
    metric = str(spec["metric"]) if watched == "metric" else str(watched)
    return None if metric in (*_WATCHED, "loss", "log_loss") else metric


def _plateau(recipe: Recipe) -> Iterator[str]:
    warmup, patience = recipe.integer("warmup_epochs"), recipe.integer("plateau_patience")
    yield f"        if epoch >= {warmup}:"
    yield "            waited = 0 if valid_loss < lowest else waited + 1"
    yield "            lowest = min(lowest, valid_loss)"
    yield f"            if waited > {patience}:"
    yield f"                scale, waited = scale * {number(recipe.number('plateau_factor'))}, 0"
