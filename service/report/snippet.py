"""The winning recipe as a PyTorch program of its own, ready to be pasted: network, update and training loop.

It does what a lane of a stack does, update for update; a test runs it beside one. What it does not know it does not leave
out silently: `snippet` refuses a recipe with a setting that this module has no line for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from service.report import batch_code
from service.report.cnn_code import cnn
from service.report.network_code import mlp, number
from service.report.schedule_code import SCHEDULES
from service.report.sequence_code import sequence
from service.report.update_code import optimizer, update
from service.spec import SETTINGS, Recipe

_KNOWN = {
    *("family", "widths", "width", "depth", "activation", "embedding", "normalization", "normalization_groups"),
    *("normalization_position", "skip_connections", "blocks", "shortcuts", "downsampling", "cell", "heads", "pooling"),
    *("dropout", "input_dropout", "head_dropout", "init", "init_distribution", "init_std"),
    *("l1", "l2", "weight_decay", "proximal_l1", "max_norm", "clip_norm", "clip_value"),
    *("optimizer", "momentum", "nesterov", "adam_beta1", "adam_beta2", "lr", "batch_size"),
    *("lr_schedule", "warmup_epochs", "averaging", "ema_decay", "swa_start", "class_weights", "label_smoothing"),
    *batch_code.SETTINGS,
}
_NETWORKS: Mapping[str, Callable[[Recipe], Iterator[str]]] = {"mlp": mlp, "cnn": cnn, "sequence": sequence}
_WATCHED = {
    "accuracy": "-({model}(x_valid).argmax(1) == y_valid).float().mean()",
    "rmse": "({model}(x_valid).squeeze(1) - y_valid).square().mean().sqrt()",
    "mae": "({model}(x_valid).squeeze(1) - y_valid).abs().mean()",
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
    network = _NETWORKS[recipe.word("family")](recipe)
    parts = [_head(recipe, spec), network, _rate(recipe), *batch_code.functions(recipe)]
    parts += [update(recipe, spec), _training(recipe, spec)]
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


def _head(recipe: Recipe, spec: Mapping[str, Any]) -> Iterator[str]:
    yield "import copy"
    yield "import math"
    yield "import random"
    yield ""
    yield "import torch"
    yield "import torch.nn.functional as F"
    yield "from torch import nn"
    if recipe.word("averaging") != "none":
        yield "from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn"
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


def _training(recipe: Recipe, spec: Mapping[str, Any]) -> Iterator[str]:
    plateau = ", scale" if recipe.word("lr_schedule") == "plateau" else ""
    balanced = ", class_weights" if batch_code.on(recipe, "class_weights") else ""
    levels = ", levels" if recipe.integer("embedding") else ""
    yield f"def train(x_train, y_train, x_valid, y_valid, outputs{levels}):"
    yield f'    """{_INPUTS[recipe.word("family")]}; {_TARGETS[spec["task"]]}"""'
    yield f"    model = make_model(x_train.shape[{2 if recipe.word('family') == 'sequence' else 1}], outputs{levels})"
    yield f"    optimizer = {optimizer(recipe)}"
    yield f"    updates = math.ceil(len(x_train) / {recipe.integer('batch_size')})"
    yield "    batch = math.ceil(len(x_train) / updates)"
    yield "    best, best_state, stale = math.inf, None, 0"
    if balanced:
        yield from _balance(recipe)
    if plateau:
        yield "    scale, lowest, waited = 1.0, math.inf, 0"
    if recipe.word("averaging") == "ema":
        average = f"get_ema_multi_avg_fn({number(recipe.number('ema_decay'))})"
        yield f"    average = AveragedModel(model, multi_avg_fn={average}, use_buffers=True)"
    yield "    for epoch in range(EPOCHS):"
    yield "        model.train()"
    yield "        order = torch.randperm(len(x_train))"
    yield "        order = torch.cat([order, order[: updates * batch - len(order)]])"
    yield "        for update, rows in enumerate(order.split(batch)):"
    yield f"            lr = learning_rate(epoch, update, updates{plateau})"
    yield f"            train_step(model, optimizer, x_train[rows], y_train[rows], lr{balanced})"
    yield from _evaluation(recipe, spec)


def _evaluation(recipe: Recipe, spec: Mapping[str, Any]) -> Iterator[str]:
    """The end of an epoch, and that of training."""
    stopping = spec.get("early_stopping")
    shown = "model" if recipe.word("averaging") == "none" else "average.module"
    yield from _averaged(recipe, spec)
    yield f"        {shown}.eval()"
    yield "        with torch.no_grad():"
    yield f"            watched = ({_watched(spec).format(model=shown)}).item()"
    if recipe.word("lr_schedule") == "plateau":
        yield f"            valid_loss = {_VALID_LOSS[spec['task']].format(model=shown)}.item()"
        yield from _plateau(recipe)
    if stopping:
        yield f"        if watched < best - {number(float(stopping['min_delta']))}:"
        yield f"            best, best_state, stale = watched, copy.deepcopy({shown}.state_dict()), 0"
        yield "        else:"
        yield "            stale += 1"
        yield f"        if stale >= {stopping['patience']}:"
        yield "            break"
        if stopping["restore_best"]:
            yield f"    {shown}.load_state_dict(best_state)"
    yield f"    return {shown}.eval()"


def _balance(recipe: Recipe) -> Iterator[str]:
    blend = number(recipe.number("class_weights"))
    yield "    counts = torch.bincount(y_train, minlength=outputs)"
    yield "    balance = len(y_train) / ((counts > 0).sum() * counts.clamp(min=1))"
    yield f"    class_weights = torch.where(counts > 0, 1 + {blend} * (balance - 1), 1.0)"


def _averaged(recipe: Recipe, spec: Mapping[str, Any]) -> Iterator[str]:
    """The average of the weights, brought up to the update, or to the end of the epoch, that is just done."""
    if recipe.word("averaging") == "ema":
        yield "            average.update_parameters(model)"
    elif recipe.word("averaging") == "swa":
        epochs = int(spec["budget"]["epochs"])
        yield f"        if epoch <= {min(epochs - 1, round(recipe.number('swa_start') * epochs))}:"
        yield "            average = AveragedModel(model, use_buffers=True)"
        yield "        average.update_parameters(model)"


_INPUTS = {
    "mlp": "x: float32, numbers standardized and categories one-hot",
    "cnn": "x: float32 (rows, channels, height, width), channels standardized",
    "sequence": "x: float32 (rows, steps, channels), channels standardized, NaN behind the end of a series",
}
_TARGETS = {"classification": "y: class indices, int64.", "regression": "y: standardized, float32."}
_VALID_LOSS = {
    "classification": "F.cross_entropy({model}(x_valid), y_valid)",
    "regression": "F.mse_loss({model}(x_valid).squeeze(1), y_valid)",
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
