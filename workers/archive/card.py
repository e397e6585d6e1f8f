"""The archive's README: what the model is, what is known of it, and how it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MOST_COLUMNS = 60


def model_card(about: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> str:
    """Markdown."""
    metric = about["metric"].replace("_", " ")
    return "\n".join(
        [
            f"# {_plain(about['study']['name'])}: a {about['task']} model for {_targets(about)}",
            "",
            f"Trained and chosen by regsearch, study {about['study']['id']}. {about['chosen']['rule']}",
            "",
            *_predicted(about),
            *_scores(about["scores"], metric, about["chosen"].get("refit")),
            *_sureness(about["chosen"].get("calibration")),
            *_deciding(about["chosen"].get("thresholds"), metric, "each label" if about.get("levels") else "a class"),
            "",
            "## Use it",
            "",
            *_foreign(about.get("module")),
            "It needs `torch`, `safetensors` and `numpy`; nothing is unpickled. `train.py` trains the same network again.",
            "",
            "```sh",
            "python loader.py new.csv --out predictions.csv",
            "```",
            "",
            "```python",
            "from loader import Model",
            "",
            'model = Model.load(".")',
            'model.predict("new.csv")  # or a pandas DataFrame, or {column: values}',
            "```",
            "",
            *_columns(preprocessing),
            "",
            "## What it is",
            "",
            *[f"- {name}: {value}" for name, value in about["model"].items()],
            *[f"- {name}: {value}" for name, value in about["recipe"].items() if name not in about["model"]],
            "",
            "## What it is not",
            "",
            "Its score holds for rows drawn as the study's rows were. Of other rows (another year, another place, values "
            "outside of those of training) nothing is known. Categories that training never saw count as none of the known "
            "ones. It finds what goes together in the data, not what causes what.",
            "",
            "## Where it comes from",
            "",
            f"- data: {about['data']['rows']} rows, hash `{about['data']['hash']}`",
            *[f"- {name} {value}" for name, value in about["versions"].items()],
            "",
        ]
    )


def _targets(about: Mapping[str, Any]) -> str:
    """The target's name, or those of several."""
    target = about["target"]
    names = [target] if isinstance(target, str) else list(target)
    more = f" and {len(names) - _MOST_COLUMNS} more (see recipe.json)" if len(names) > _MOST_COLUMNS else ""
    return ", ".join(map(_code, names[:_MOST_COLUMNS])) + more


def _foreign(module: Mapping[str, Any] | None) -> list[str]:
    if module is None:
        return []
    name = module["name"]
    return [
        f"The network is the module `{name}`, whose code is not in here: `loader.py` takes `--module {name}`, and "
        f"`Model.load` its class as `module`.",
        "",
    ]


def _predicted(about: Mapping[str, Any]) -> list[str]:
    if about.get("levels"):
        pairs = ", ".join(f"{_code(second)} of {_code(name)}" for name, (_, second) in _labels(about)[:_MOST_COLUMNS])
        return [
            f"It predicts each label by itself; its probabilities are those of {pairs}. Metrics are means over the labels.",
            "",
        ]
    several = not isinstance(about["target"], str)
    told = ["Metrics are means over the targets, in standard deviations of each.", ""] if several else []
    level = about.get("quantile")
    if level is None:
        return told
    share = f"about {100 * level:g} % of the rows should be below it."
    return [f"It predicts the {level:g} quantile of {_targets(about)}: {share}", "", *told]


def _labels(about: Mapping[str, Any]) -> list[tuple[str, tuple[str, str]]]:
    """The names and the two values of several labels."""
    return list(zip(about["target"], about["levels"], strict=True))


def _scores(scores: Mapping[str, Any], metric: str, refit: Mapping[str, Any] | None) -> list[str]:
    valid, test = scores["valid"], scores["test"]
    lines = [f"| {metric} | value | how |", "|---|---|---|"]
    if refit is None:
        lines.append(f"| validation | {_digits(scores['this_network'])} | this network, which was chosen by this number |")
    spread = f"{_digits(valid['mean'])} ± {_digits(valid['std'], 2)}"
    lines.append(f"| validation | {spread} | mean and deviation over {valid['n']} seeds |")
    if refit is not None:
        lines.append(f"| validation | {_digits(refit['average'])} | average of these networks |")
        part = "all rows" if refit["of"] == "all" else "training and validation rows"
        part += f", each of its networks without one of {refit['folds']} folds" if refit.get("folds") else ""
        lines = [f"These scores are the recipe's, trained on part of the rows; what is in here saw {part}.", "", *lines]
        mean, low, high = (refit["test"][name] for name in ("mean", "low", "high"))
        lines.append(
            f"| test | {_digits(mean)} | average of these networks, 95 % interval {_digits(low)} to {_digits(high)} |"
        )
    if test is not None:
        interval = f"95 % interval {_digits(test['low'])} to {_digits(test['high'])}"
        lines.append(f"| test | {_digits(test['mean'])} | {interval}, {test['n']} rows that nothing was chosen on |")
    return lines


def _sureness(calibration: Mapping[str, Any] | None) -> list[str]:
    if calibration is None:
        return []
    before, after = (_digits(calibration[f"test_{when}"]) for when in ("before", "after"))
    return [
        "",
        f"Its probabilities are those at the temperature {_digits(calibration['temperature'], 3)}, which validation rows "
        f"have determined: with it the cross-entropy on the test rows was {after}, without it {before}.",
    ]


def _deciding(thresholds: Mapping[str, Any] | None, metric: str, what: str) -> list[str]:
    if thresholds is None or not any(thresholds["biases"]):
        return []
    before, after = (_digits(thresholds[f"test_{when}"]) for when in ("before", "after"))
    return [
        "",
        f"It decides for {what} by thresholds that validation rows have determined, not for the largest probability: with "
        f"them the {metric} on the test rows was {after}, without them {before}.",
    ]


def _plain(text: object) -> str:
    """A text from outside as Markdown that shows it, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&~])", r"\\\1", _one_line(text))


def _code(text: object) -> str:
    """A text from outside as code, between more backticks than it has in a row (CommonMark 6.1)."""
    shown = _one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if len(fence) > 1 or not shown.strip() else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _one_line(text: object) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def _digits(value: float | None, count: int = 4) -> str:
    """A number of a result, where null is an undefined one."""
    return "undefined" if value is None else f"{value:.{count}g}"


def _columns(preprocessing: Mapping[str, Any]) -> list[str]:
    if preprocessing["kind"] == "array":
        channels = len(preprocessing["mean"])
        return [f"It reads an NPZ file with the array `x`: {preprocessing['layout']} examples of {channels} channels."]
    numbers, words = preprocessing["numbers"]["columns"], preprocessing["words"]["columns"]
    return [
        f"- {kind}: {', '.join(map(_code, names[:_MOST_COLUMNS]))}"
        + (f" and {len(names) - _MOST_COLUMNS} more (see preprocessing.json)" if len(names) > _MOST_COLUMNS else "")
        for kind, names in (("numbers", numbers), ("categories", words))
        if names
    ]
