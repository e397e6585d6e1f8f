"""Several networks that share their weights: members, which differ by a factor of every input and every output of a layer.

Shapes: `b` examples, `m` members, `d` features, `o` outputs. Layers see the members as further rows, (b·m, d), those of an
example one below the other.
References: Wen et al., "BatchEnsemble" (ICLR 2020); Gorishniy et al., "TabM: Advancing tabular deep learning with
parameter-efficient ensembling" (ICLR 2025) for where the factors begin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Draw


class Adapted(nn.Module):
    """(b·m, d) to (b·m, e): a shared ``layer`` without a bias, whose inputs and outputs have factors of each member.

    ``first``: its input factors begin as random signs, which makes the members differ; all other factors begin as 1.
    """

    def __init__(self, layer: nn.Module, inputs: int, outputs: int, members: int, *, first: bool) -> None:
        super().__init__()
        self.layer = layer
        self._members, self._inputs, self._outputs, self._first = members, inputs, outputs, first
        # Factors and biases lie in a row, for penalties and decay leave vectors alone.
        self.input_factor = nn.Parameter(torch.ones(members * inputs))
        self.output_factor = nn.Parameter(torch.ones(members * outputs))
        self.bias = nn.Parameter(torch.zeros(members * outputs))

    @torch.no_grad()
    def initialize(self, draw: Draw, generator: torch.Generator) -> None:
        """The factors and biases; the shared layer is drawn as any other."""
        self.input_factor.fill_(1.0)
        if self._first:
            self.input_factor.copy_(torch.randint(0, 2, self.input_factor.shape, generator=generator) * 2.0 - 1.0)
        self.output_factor.fill_(1.0)
        self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(b·m, d) to (b·m, e)."""
        own = x.reshape(-1, self._members, self._inputs) * self.input_factor.view(self._members, self._inputs)
        out: Tensor = self.layer(own.flatten(0, 1))
        factor, bias = (each.view(self._members, self._outputs) for each in (self.output_factor, self.bias))
        return (out.reshape(-1, self._members, self._outputs) * factor + bias).flatten(0, 1)


class MembersHead(nn.Linear):
    """(b·m, d) to (b, m, o): a last layer of every member's own, whose units lie one below the other."""

    def __init__(self, features: int, outputs: int, members: int) -> None:
        super().__init__(features, members * outputs)
        self._members = members

    def forward(self, x: Tensor) -> Tensor:
        """(b·m, d) to (b, m, o)."""
        own = x.reshape(-1, self._members, self.in_features)
        weight = self.weight.view(self._members, -1, self.in_features)
        return torch.einsum("bmd,mod->bmo", own, weight) + self.bias.view(self._members, -1)


def flattened(out: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (b, m, o) and labels (b, ...) of members as rows, (b·m, o) and (b·m, ...); outputs (b, o) of one network as
    they are.

    The mean loss of the rows is the mean of the members' losses.
    """
    if out.ndim == 2:
        return out, labels
    return out.flatten(0, 1), labels.repeat_interleave(out.shape[1], dim=0)


def _mean_of_probabilities(out: Tensor) -> Tensor:
    return out.log_softmax(-1).logsumexp(0) - math.log(len(out))


def _mean_of_labels(out: Tensor) -> Tensor:
    """The logits of the mean probabilities."""
    return F.logsigmoid(out).logsumexp(0) - F.logsigmoid(-out).logsumexp(0)


MEANS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "classification": _mean_of_probabilities,
    "multilabel": _mean_of_labels,
    "regression": lambda out: out.mean(0),
}
"""By task: the outputs (b, o) that stand for the average of predictions, of the outputs (n, b, o) of n networks."""
