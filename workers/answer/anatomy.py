"""What regularization did to the weights and to the course of training: norms, sparsity, mean learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workers.answer.candidates import Candidate, Weights
from workers.scoring.scores import Spread
from workers.stack.run import Run

NEARLY_ZERO = 1e-3
MOST_POINTS = 200


def weights(candidate: Candidate) -> dict[str, Any]:
    """Euclidean norm and sparsity (share of |w| ≤ 10⁻³) of all weight matrices and of each, over the seeds."""
    networks = [_matrices(folds[0]) for folds in candidate.weights.values()]
    layers = [
        {
            "name": name,
            "norm": float(np.mean([np.linalg.norm(network[name]) for network in networks])),
            "sparsity": float(np.mean([_share(network[name]) for network in networks])),
        }
        for name in networks[0]
    ]
    flat = [np.concatenate([matrix.ravel() for matrix in network.values()]) for network in networks]
    return {
        "norm": Spread.of([float(np.linalg.norm(values)) for values in flat]).to_json(),
        "sparsity": Spread.of([_share(values) for values in flat]).to_json(),
        "layers": layers,
    }


def curves(candidate: Candidate, metric: str) -> dict[str, Any]:
    """Means over the seeds by epoch: training loss (with penalties and dropout), validation loss and metric.

    A seed that has converged is in the means of its own epochs only; ``seeds`` says how many are in each. ``best`` is
    the mean epoch whose weights were kept.
    """
    runs = list(candidate.runs.values())
    longest = max(run.epoch for run in runs)
    epochs = np.unique(np.linspace(0, longest - 1, min(longest, MOST_POINTS)).round().astype(int))
    names = dict.fromkeys(("train_loss", "loss", metric))
    return {
        "epochs": (epochs + 1).tolist(),
        "seeds": [sum(run.epoch > epoch for run in runs) for epoch in epochs.tolist()],
        "best": float(np.mean([run.best_epoch + 1 for run in runs])),
        **{name: [_mean(runs, name, epoch) for epoch in epochs.tolist()] for name in names},
    }


def _mean(runs: Sequence[Run], name: str, epoch: int) -> float:
    return float(np.mean([run.curve[name][epoch] for run in runs if run.epoch > epoch]))


def _matrices(state: Weights) -> dict[str, Any]:
    """What penalties and decay act on, more or less: everything with two or more dimensions."""
    return {name: value.numpy().astype(np.float64) for name, value in state.items() if value.ndim >= 2}


def _share(values: Any) -> float:
    return float((np.abs(values) <= NEARLY_ZERO).mean())
