"""The answer in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from service.result import Setting, Winner


def verdict(metric: str, winner: Winner, baseline: Setting, others: Sequence[Setting], outer: int = 0) -> str:
    """The verdict on the winner, compared with the unregularized network and the framework's defaults.

    With so many ``outer`` folds of nested validation, the score is that of the procedure.
    """
    which = ", ".join(winner.regularizers) or "early stopping alone"
    name = metric.replace("_", " ")
    if math.isnan(winner.test.mean):
        return f"Test {name} is undefined on these test rows; on validation rows the best is {which}."
    sentence = f"Test {name} {winner.test.mean:.4g} with {which}"
    if outer:
        sentence = f"Test {name} {winner.test.mean:.4g} for searches like this one, over {outer} outer folds of all rows"
        sentence += f" (on all of them it found {which})"
    gain = baseline.behind_winner
    if baseline.test is None:
        return f"{sentence}; without regularization the network does not converge."
    if gain is None:
        return f"{sentence}; no seed trained the network both with and without regularization."
    effect = "better than" if gain.mean > 0 else "no better than"
    certainty = "" if gain.excludes_zero else " (the 95 % interval of the difference includes 0)"
    sentence += f", {effect} {baseline.test.mean:.4g} for the same network without regularization{certainty}"
    for other, words in (
        ("framework defaults", "with the framework's default training"),
        ("trained from scratch", "without the earlier study's weights"),
    ):
        test = next((each.test for each in others if each.name == other), None)
        if test is not None:
            sentence += f", and {test.mean:.4g} {words}"
    return f"{sentence}."
