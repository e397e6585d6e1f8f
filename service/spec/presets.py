"""Presets that determine more than the space: also the network, the scaling, and when training ends.

They fill in what a study leaves out, and nothing else. Values that depend on the task are filled in once it is known.
References: Holzmüller et al., "Better by default: strong pre-tuned MLPs and boosted trees on tabular data" (NeurIPS 2024)
for the network and the settings called RealMLP-TD, with rates converted to ordinary parametrization (see `fan_in_lr`);
Gorishniy et al., "TabM: Advancing tabular deep learning with parameter-efficient ensembling" (ICLR 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from service.spec.metrics import PROBABILITY_METRICS, Task

T = TypeVar("T")


@dataclass(frozen=True)
class Whole:
    """Parts of a study as users write them: for every task, and for each of them."""

    model: Mapping[str, Any]
    scaling: str
    study: Mapping[str, Any]
    trials: int
    by_task: Mapping[Task, Mapping[str, Mapping[str, Any]]]
    first: Mapping[Task, Mapping[str, Any]]
    """Settings of the first trial, of those that are searched."""


_NETWORK: Mapping[str, Any] = {
    "activation": None,  # by task
    "numeric_embedding": "periodic",
    "feature_scaling": True,
    "learnt_activation": True,
    "bias_lr_factor": 0.1,
    "embedding_lr_factor": 0.1,
    "scaling_lr_factor": 6.0,
    "activation_lr_factor": 0.1,
    "fan_in_lr": True,
}
# Early stopping must wait for a whole cycle of the schedule, during which the rate rises and scores get worse.
_STUDY: Mapping[str, Any] = {"early_stopping": {"patience": 40}}


def _by_task(classes: T, numbers: T) -> Mapping[Task, T]:
    """Several labels are trained like classes."""
    return {"classification": classes, "multilabel": classes, "regression": numbers}


_RATES: Mapping[Task, Any] = _by_task(
    {"low": 8e-4, "high": 8e-3, "log": True},
    {"low": 3e-3, "high": 3e-2, "log": True},
)
_OFF: Mapping[str, Any] = {"l1": "off", "feature_masking": "off"}
_PUBLISHED: Mapping[Task, Mapping[str, Any]] = _by_task(
    {"lr": 2.5e-3, "weight_decay": 0.32, "dropout": 0.15, "label_smoothing": 0.1, **_OFF},
    {"lr": 1.25e-2, "weight_decay": 0.064, "dropout": 0.15, **_OFF},
)
_ACTIVATIONS: Mapping[Task, str] = _by_task("selu", "mish")

_TASKS: tuple[Task, ...] = get_args(Task)
_SMOOTHING: Mapping[Task, Any] = _by_task(["off", 0.1], "off")


def _whole(width: int, rates: Mapping[Task, Any]) -> Whole:
    return Whole(
        model={**_NETWORK, "width": width, "depth": 3},
        scaling="robust",
        study=_STUDY,
        trials=300,
        by_task={
            task: {
                "model": {"activation": _ACTIVATIONS[task], "embedding": 8},
                "space": {"lr": rates[task], "label_smoothing": _SMOOTHING[task]},
            }
            for task in _TASKS
        },
        first=_PUBLISHED,
    )


_TABM = Whole(
    model={
        "activation": "relu",
        "width": 512,
        "depth": 3,
        "members": 32,
        "numeric_embedding": "piecewise_linear",
    },
    scaling="quantile",
    study={"early_stopping": {"patience": 16}},
    trials=30,  # each takes as long as 32 of an ordinary network
    by_task={},
    first={task: {"weight_decay": 3e-4, "dropout": 0.1} for task in _TASKS},
)

# Kadra et al. train for three whole cycles, 15 + 30 + 60 epochs, and stop none of them early.
_COCKTAIL = Whole(
    model={},
    scaling="standard",
    study={"early_stopping": "off", "budget": {"epochs": 105}},
    trials=600,
    by_task={},
    first={},
)

PENDING = ("activation", "lr", "label_smoothing")
"""Settings that depend on the task with some preset; until it is known they may have any value."""
USUAL = "tabular"
"""The preset of an `mlp` if a study names none."""
WHOLE: Mapping[str, Whole] = {
    "tabular": _whole(128, _RATES),
    "realmlp": _whole(256, {task: values["lr"] for task, values in _PUBLISHED.items()}),
    "tabm": _TABM,
    "cocktail": _COCKTAIL,
}
"""By the word of `space.preset`."""


def filled(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A raw study with what its preset determines of the parts that it leaves out, and a preset if it names none.

    That is `tabular` for networks trained from scratch on rows of numbers, `modules` for modules of theirs, else `default`.
    """
    space, model = (raw.get(name) or {} for name in ("space", "model"))
    if not all(isinstance(part, Mapping) for part in (space, model)):
        return dict(raw)
    if model.get("module") is not None:
        return {**raw, "space": {"preset": "modules", "init": "own", "normalization": "none", **space}}
    word = space.get("preset") or ("default" if model.get("family", "mlp") != "mlp" else USUAL)
    whole = WHOLE.get(str(word))
    if whole is None or model.get("start_from") is not None:
        return {**raw, "space": {"preset": "default", **space, **_unseen(word, space, raw.get("early_stopping", True))}}
    study = {name: value for name, value in whole.study.items() if name not in raw}
    if isinstance(budget := raw.get("budget"), Mapping):
        study["budget"] = {**whole.study.get("budget", {}), **budget}
    network = {name: value for name, value in whole.model.items() if "widths" not in model or name not in ("width", "depth")}
    return {
        **raw,
        **study,
        "space": {**space, "preset": word, **_unseen(word, space, raw.get("early_stopping", "off"))},
        "model": {**network, **model},
    }


def _unseen(word: object, space: Mapping[str, Any], stopping: object) -> dict[str, Any]:
    """Snapshots are no part of a cocktail that stops early: they wait for restarts, after which scores get worse."""
    stops = stopping not in ("off", False, None)
    return {"snapshots": False} if word == "cocktail" and stops and not {"snapshots", "lr_schedule"} & set(space) else {}


def filled_for_task(document: Mapping[str, Any], task: Task, metric: str, *, categories: bool) -> dict[str, Any]:
    """The JSON of a valid study with what its preset says about its task.

    Label smoothing is left out where the metric judges probabilities, which it changes; embeddings where the data have no
    ``categories``.
    """
    whole, data = WHOLE.get(document["space"]["preset"]), document["data"]
    if document["model"].get("start_from") is not None:
        return dict(document)
    scaling = data["scaling"] or ("standard" if whole is None else whole.scaling)
    found = {**document, "data": {**data, "scaling": scaling}}
    if whole is None:
        return found
    neutral: dict[str, Any] = {"embedding": "off"} if not categories else {}
    neutral |= {"label_smoothing": "off"} if metric in PROBABILITY_METRICS else {}
    for part, values in whole.by_task.get(task, {}).items():
        given = {name: value for name, value in document[part].items() if value is not None}
        found[part] = {name: neutral.get(name, value) for name, value in values.items()} | given
    return found


def usual_trials(preset: str, otherwise: int) -> int:
    """The number of trials if a study names none; k folds take a k-th of it."""
    whole = WHOLE.get(preset)
    return otherwise if whole is None else whole.trials


def first_trial(document: Mapping[str, Any], task: Task) -> dict[str, Any] | None:
    """The published settings among those that a study searches; None where its preset has none, or it has its own."""
    whole = WHOLE.get(document["space"]["preset"])
    if whole is None or document["enqueue"]:
        return None
    searched = {name for name, value in document["space"].items() if isinstance(value, dict | list)}
    return {name: value for name, value in whole.first.get(task, {}).items() if name in searched} or None
