"""Effects of regularization on weights and training: norms, sparsity, mean learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.result import Curves, LayerWeights, WeightStatistics
from workers.answer.candidates import Candidate, Weights
from workers.plain.network import parts
from workers.scoring.scores import spread
from workers.stack.run import Run

NEARLY_ZERO = 1e-3
MOST_POINTS = 200


def weights(candidate: Candidate) -> WeightStatistics:
    """Euclidean norm and sparsity (share of |w| ≤ 10⁻³) of all weight matrices and of each, over the seeds; those of
    snapshots are left out.
    """
    networks = [_matrices(parts(folds[0])[0]) for folds in candidate.weights.values()]
    layers = tuple(
        LayerWeights(
            name=name,
            norm=float(np.mean([np.linalg.norm(network[name]) for network in networks])),
            sparsity=float(np.mean([_share(network[name]) for network in networks])),
        )
        for name in networks[0]
    )
    flat = [np.concatenate([matrix.ravel() for matrix in network.values()]) for network in networks]
    norm = spread([float(np.linalg.norm(values)) for values in flat])
    return WeightStatistics(norm=norm, sparsity=spread([_share(values) for values in flat]), layers=layers)


def curves(candidate: Candidate, metric: str) -> Curves:
    """Means over the seeds by epoch: training loss (with penalties and dropout), validation loss and metric.

    A seed that has converged contributes to the means of its own epochs only; ``seeds`` is the number of seeds in each.
    ``best`` is the mean epoch whose weights were kept.
    """
    runs = list(candidate.runs.values())
    longest = max(run.epoch for run in runs)
    epochs = np.unique(np.linspace(0, longest - 1, min(longest, MOST_POINTS)).round().astype(int))
    names = dict.fromkeys(("train_loss", "loss", metric))
    return Curves.of(
        epochs=(epochs + 1).tolist(),
        seeds=[sum(run.epoch > epoch for run in runs) for epoch in epochs.tolist()],
        best=float(np.mean([run.best_epoch + 1 for run in runs])),
        courses={name: [_mean(runs, name, epoch) for epoch in epochs.tolist()] for name in names},
    )


def _mean(runs: Sequence[Run], name: str, epoch: int) -> float:
    return float(np.mean([run.curve[name][epoch] for run in runs if run.epoch > epoch]))


def _matrices(state: Weights) -> Mapping[str, NDArray[np.float64]]:
    """Roughly what penalties and decay act on: all parameters with two or more dimensions."""
    return {name: value.numpy().astype(np.float64) for name, value in state.items() if value.ndim >= 2}


def _share(values: NDArray[np.float64]) -> float:
    return float((np.abs(values) <= NEARLY_ZERO).mean())
