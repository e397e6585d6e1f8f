"""Sparsification by magnitude: how many weights of a trained network can be set to zero, and at what cost.

One-shot and global: the smallest weights of all layers together become zero, biases and normalization stay. Independent of
studies; the caller provides the score.
References: Han et al., "Learning both weights and connections for efficient neural networks" (NeurIPS 2015); Zhu and Gupta,
"To prune, or not to prune" (2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, prune

from service.result import SparsityPoint
from workers.plain.network import load_weights

SPARSITIES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)


def prunable(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Layers, each with the name of a weight parameter: a matrix or a kernel, not a bias, gain or norm."""
    return [
        (layer, name)
        for layer in module.modules()
        for name, parameter in layer.named_parameters(recurse=False)
        if parameter.ndim > 1 and name != "weight_g"
    ]


def sparsity_curve(
    module: nn.Module,
    state: Mapping[str, Tensor],
    score: Callable[[nn.Module], float],
    shares: Sequence[float] = SPARSITIES,
) -> tuple[SparsityPoint, ...]:
    """The scores of a trained network at increasing sparsity.

    Args:
        module: A network of the right shape; it is left with the weights of ``state``.
        state: Its trained state, as `nn.Module.load_state_dict` takes it.
        score: Scores a network in eval mode; nothing may be chosen by these scores.
        shares: Shares of the weights to set to zero.

    Raises:
        ValueError: A share lies outside [0, 1].
    """
    module.eval()
    weights = prunable(module)
    points = []
    for share in shares:
        load_weights(module, state)
        prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=float(share))
        for layer, name in weights:
            prune.remove(layer, name)  # type: ignore[no-untyped-call]
        values = parameters_to_vector(getattr(layer, name) for layer, name in weights)
        zeros = float((values == 0).double().mean())
        points.append(SparsityPoint(asked=share, sparsity=zeros, score=score(module)))
    load_weights(module, state)
    return tuple(points)
