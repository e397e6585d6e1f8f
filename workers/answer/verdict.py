"""The answer in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def verdict(metric: str, winner: Mapping[str, Any], baseline: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """Winner, unregularized network and framework's defaults, as the result's settings have them."""
    which = ", ".join(winner["regularizers"]) or "early stopping alone"
    sentence = f"Test {metric.replace('_', ' ')} {winner['test']['mean']:.4g} with {which}"
    if baseline["test"] is None:
        return f"{sentence}; without regularization the network does not converge."
    gain = baseline["behind_winner"]
    effect = "better than" if gain["mean"] > 0 else "no better than"
    unclear = gain["low"] <= 0 <= gain["high"]
    certainty = " (the 95 % interval of the difference includes 0)" if unclear else ""
    sentence += f", {effect} {baseline['test']['mean']:.4g} for the same network without regularization{certainty}"
    defaults = next((each for each in others if each["name"] == "framework defaults" and each["test"]), None)
    if defaults is not None:
        sentence += f", and {defaults['test']['mean']:.4g} with the framework's default training"
    scratch = next((each for each in others if each["name"] == "trained from scratch" and each["test"]), None)
    if scratch is not None:
        sentence += f", and {scratch['test']['mean']:.4g} without the earlier study's weights"
    return f"{sentence}."
