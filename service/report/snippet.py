"""The winning recipe as a PyTorch program of its own, ready to be pasted: network, update and training loop.

It does what a lane of a stack does, update for update; a test runs it beside one. What it does not know it does not leave
out silently: `snippet` refuses a recipe with a setting that this module has no line for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.report.embedding_code import embeddings
from service.report.schedule_code import SCHEDULES
from service.spec import SETTINGS, Recipe

_KNOWN = {
    *(
        "family",
        "widths",
        "width",
        "depth",
        "activation",
        "embedding",
        "normalization",
        "normalization_groups",
        "dropout",
        "input_dropout",
    ),
    *("l1", "l2", "weight_decay", "proximal_l1", "max_norm", "clip_norm", "clip_value"),
    *("optimizer", "momentum", "nesterov", "adam_beta1", "adam_beta2", "lr", "batch_size"),
    *("lr_schedule", "warmup_epochs", "init", "init_distribution"),
}
_ACTIVATIONS = {"relu": "nn.ReLU()", "gelu": "nn.GELU()", "silu": "nn.SiLU()", "tanh": "nn.Tanh()", "elu": "nn.ELU()"}
_INITIALIZATIONS = {
    ("he", "uniform"): 'nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")',
    ("he", "normal"): 'nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")',
    ("xavier", "uniform"): "nn.init.xavier_uniform_(layer.weight)",
    ("xavier", "normal"): "nn.init.xavier_normal_(layer.weight)",
}
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
    embedding = [embeddings(recipe)] if recipe.integer("embedding") else []
    parts = [_head(spec), *embedding, _network(recipe), _rate(recipe), _update(recipe, spec), _training(recipe, spec)]
    return "\n\n\n".join("\n".join(part) for part in parts) + "\n"


def _refuse_unknown(recipe: Recipe) -> None:
    if recipe.word("family") != "mlp":
        raise NoSnippet(f"there is no snippet for networks of the family {recipe.word('family')}")
    schedule = recipe.word("lr_schedule")
    if schedule not in SCHEDULES:
        raise NoSnippet(f"there is no snippet for the schedule {schedule}")
    known = _KNOWN | set(SCHEDULES[schedule].settings)
    # What is at its neutral value needs no line.
    unknown = [name for name in recipe.said() if name not in known and recipe[name] != SETTINGS[name].neutral]
    words = {"activation": _ACTIVATIONS, "optimizer": _OPTIMIZERS, "normalization": _NORMS}
    unknown += [f"{name} {recipe.word(name)}" for name, lines in words.items() if recipe.word(name) not in lines]
    if (recipe.word("init"), recipe.word("init_distribution")) not in _INITIALIZATIONS:
        unknown.append(f"init {recipe.word('init')}")
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


_LEVELS = ", levels"
_NORMS = {"none", "weight", "batch", "layer", "group"}


def _network(recipe: Recipe) -> Iterator[str]:
    normalization, widths = recipe.word("normalization"), recipe.widths
    rates = recipe.layers("dropout", len(widths))
    embedded = recipe.integer("embedding") > 0
    yield f"def make_model(inputs, outputs{_LEVELS if embedded else ''}):"
    if embedded:
        yield "    embeddings = Embeddings(inputs, levels)"
    yield "    model = nn.Sequential("
    if recipe.number("input_dropout"):
        yield f"        nn.Dropout({_n(recipe.number('input_dropout'))}),"
    if embedded:
        yield "        embeddings,"
    before = "embeddings.outputs" if embedded else "inputs"
    for width, rate in zip(widths, rates, strict=False):
        # Batch normalization takes any bias away again.
        bias = ", bias=False" if normalization == "batch" else ""
        yield f"        nn.Linear({before}, {width}{bias}),"
        if normalization in ("batch", "layer", "group"):
            yield f"        {_norm(recipe, width)},"
        yield f"        {_ACTIVATIONS[recipe.word('activation')]},"
        if rate:
            yield f"        nn.Dropout({_n(rate)}),"
        before = str(width)
    yield f"        nn.Linear({before}, outputs),"
    yield "    )"
    yield "    for layer in model:"
    yield "        if isinstance(layer, nn.Linear):"
    yield f"            {_INITIALIZATIONS[recipe.word('init'), recipe.word('init_distribution')]}"
    yield "            if layer.bias is not None:"
    yield "                nn.init.zeros_(layer.bias)"
    if normalization == "weight":
        yield "    for layer in model[:-1]:"
        yield "        if isinstance(layer, nn.Linear):"
        yield "            nn.utils.parametrizations.weight_norm(layer)"
    yield "    return model"


def _norm(recipe: Recipe, width: int) -> str:
    match recipe.word("normalization"):
        case "batch":
            return f"nn.BatchNorm1d({width})"
        case "layer":
            return f"nn.LayerNorm({width})"
        case _:
            groups = recipe.integer("normalization_groups")
            return f"nn.GroupNorm(math.gcd({groups}, {width}), {width})"


def _rate(recipe: Recipe) -> Iterator[str]:
    """The learning rate of every update."""
    lr, warmup = _n(recipe.number("lr")), recipe.integer("warmup_epochs")
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


_OPTIMIZERS = {"sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta"}


def _optimizer(recipe: Recipe) -> str:
    match recipe.word("optimizer"):
        case "sgd":
            nesterov = ", nesterov=True" if recipe["nesterov"] and recipe.number("momentum") else ""
            return f"torch.optim.SGD(model.parameters(), lr=0.0, momentum={_n(recipe.number('momentum'))}{nesterov})"
        case "adam" | "adamw":
            betas = f"({_n(recipe.number('adam_beta1'))}, {_n(recipe.number('adam_beta2'))})"
            return f"torch.optim.Adam(model.parameters(), lr=0.0, betas={betas})"
        case other:
            name = {"rmsprop": "RMSprop", "adagrad": "Adagrad", "adadelta": "Adadelta"}[other]
            return f"torch.optim.{name}(model.parameters(), lr=0.0)"


def _update(recipe: Recipe, spec: Mapping[str, Any]) -> Iterator[str]:
    loss = "F.cross_entropy(model(x), y)" if spec["task"] == "classification" else "F.mse_loss(model(x).squeeze(1), y)"
    on = {name: _n(recipe.number(name)) for name in _STRENGTHS if recipe.number(name)}
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
    if "proximal_l1" in on or "max_norm" in on:
        yield "    with torch.no_grad():"
        yield "        for w in weights:"
        if "proximal_l1" in on:
            yield f"            w.copy_(F.softshrink(w, lr * {on['proximal_l1']}))"
        if "max_norm" in on:
            yield from _max_norm(recipe, on["max_norm"])
    yield "    return loss.item()"


_STRENGTHS = ("l1", "l2", "clip_value", "clip_norm", "weight_decay", "proximal_l1", "max_norm")
_PENALTIES = {
    "l1": "{} * sum(w.abs().sum() for w in weights)",
    "l2": "{} / 2 * sum(w.square().sum() for w in weights)",
}


def _max_norm(recipe: Recipe, limit: str) -> Iterator[str]:
    if recipe.word("normalization") == "weight":
        yield "        for name, w in model.named_parameters():  # a unit's norm is its gain, original0"
        yield '            if w.ndim > 1 and not name.endswith("original1"):'
        yield f"                w.copy_(w.renorm(2, 0, {limit}))"
    else:
        yield f"            w.copy_(w.renorm(2, 0, {limit}))"


def _training(recipe: Recipe, spec: Mapping[str, Any]) -> Iterator[str]:
    stopping = spec.get("early_stopping")
    plateau = recipe.word("lr_schedule") == "plateau"
    levels = _LEVELS if recipe.integer("embedding") else ""
    yield f"def train(x_train, y_train, x_valid, y_valid, outputs{levels}):"
    yield f'    """{_DATA[spec["task"]]}"""'
    yield f"    model = make_model(x_train.shape[1], outputs{levels})"
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
        yield f"        if watched < best - {_n(float(stopping['min_delta']))}:"
        yield "            best, best_state, stale = watched, copy.deepcopy(model.state_dict()), 0"
        yield "        else:"
        yield "            stale += 1"
        yield f"        if stale >= {stopping['patience']}:"
        yield "            break"
        if stopping["restore_best"]:
            yield "    model.load_state_dict(best_state)"
    yield "    return model.eval()"


_DATA = {
    "classification": "x: float32, numbers standardized and categories one-hot; y: class indices, int64.",
    "regression": "x: float32, numbers standardized and categories one-hot; y: standardized, float32.",
}
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
    yield f"                scale, waited = scale * {_n(recipe.number('plateau_factor'))}, 0"


def _n(value: float) -> str:
    """A number as Python reads it back, exactly."""
    return repr(float(value))
