"""Magnitude pruning: how much of a trained network can be set to zero, and what that costs.

One-shot and global: the smallest weights of all layers together become zero, biases and normalization stay. Equal to
`torch.nn.utils.prune.global_unstructured` with `L1Unstructured`. Knows nothing of studies; what a score is, is the caller's.
References: Han et al., "Learning both weights and connections for efficient neural networks" (NeurIPS 2015); Zhu and Gupta,
"To prune, or not to prune" (2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SPARSITIES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class SparsityPoint:
    """``asked`` is the share of weights to set to zero, ``sparsity`` the share that is zero, ``score`` what remains."""

    asked: float
    sparsity: float
    score: float


def prunable(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that are weights: matrices and kernels, not biases, gains or recurrent bias vectors."""
    return tuple(
        name for name, parameter in module.named_parameters() if parameter.ndim > 1 and not name.endswith("weight_g")
    )


def pruned(state: Mapping[str, Tensor], names: Sequence[str], share: float) -> dict[str, Tensor]:
    """The same state with ``share`` of the weights ``names`` set to zero, the smallest in absolute value.

    Raises:
        ValueError: ``share`` lies outside [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share is {share}; allowed: a number from 0 to 1")
    flat = torch.cat([state[name].flatten() for name in names])
    flat[flat.abs().argsort(stable=True)[: round(share * len(flat))]] = 0.0
    parts = torch.split(flat, [state[name].numel() for name in names])
    return {**state, **{name: part.view_as(state[name]) for name, part in zip(names, parts, strict=True)}}


def sparsity_curve(
    module: nn.Module,
    state: Mapping[str, Tensor],
    score: Callable[[nn.Module], float],
    shares: Sequence[float] = SPARSITIES,
) -> list[SparsityPoint]:
    """What a trained network scores at growing sparsity.

    Args:
        module: A network of the right shape; it is left with the weights of ``state``.
        state: Its trained state, as `nn.Module.load_state_dict` takes it.
        score: Of a network in eval mode, on data that no choice may be made with again.
        shares: Of the weights to set to zero.
    """
    names = prunable(module)
    points = []
    for share in shares:
        thinned = pruned(state, names, share)
        module.load_state_dict(thinned)
        module.eval()
        zeros = sum(int((thinned[name] == 0).sum()) for name in names)
        points.append(SparsityPoint(share, zeros / sum(thinned[name].numel() for name in names), score(module)))
    module.load_state_dict(dict(state))
    return points
