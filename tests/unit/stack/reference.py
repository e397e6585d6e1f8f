"""The training of one lane by `workers.plain`, an ordinary program with torch.optim, given the lane's random numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from service.spec import Recipe
from workers.plain import training
from workers.plain.chance import Chance
from workers.plain.network import adopt, build, initialize, spread
from workers.stack.device_data import DeviceData
from workers.stack.dropout import LaneDropout
from workers.stack.hashing import combine, draw, normal, permutations, uniform
from workers.stack.stack import _ORDER, StackKey
from workers.stack.techniques import mixing
from workers.stack.techniques.base import OLD_KEYS, key_of


def whole(number: int) -> Tensor:
    return torch.tensor(number, dtype=torch.int32)


class LaneChance(Chance):
    """The random numbers of a lane with a ``seed``, and the keys of its dropout layers."""

    def __init__(self, seed: int, network: nn.Module) -> None:
        self._seed = whole(seed)
        self._dropouts = [layer for layer in network.modules() if isinstance(layer, LaneDropout)]
        self.begin(0, None)

    def begin(self, update: int, part: int | None) -> None:
        self._base = combine(self._seed, whole(update))
        self._part = part
        for index, layer in enumerate(self._dropouts):
            key = combine(self._base, whole(index + 1))
            layer.key.copy_(key if part is None else combine(key, part))

    def _of(self, what: str) -> Tensor:
        if what in ("coin", "patch"):
            own = self._of("cutmix")
            return own if what == "coin" else combine(own, mixing._PLACE)
        numbers = [1, *range(-len(OLD_KEYS), 0)]
        keys = torch.stack([combine(self._base, whole(number)) for number in numbers])
        return key_of(what, keys[None] if self._part is None else combine(keys[None], self._part))[0]

    def order(self, epoch: int, rows: int) -> Tensor:
        return permutations(combine(combine(self._seed[None], _ORDER), whole(epoch)[None]), rows)[0]

    def uniform(self, what: str, shape: tuple[int, ...]) -> Tensor:
        if what == "coin":
            return uniform(draw(self._of(what), whole(1)))
        return uniform(draw(self._of(what), torch.arange(torch.Size(shape).numel(), dtype=torch.int32))).view(shape)

    def normal(self, what: str, shape: tuple[int, ...]) -> Tensor:
        return normal(self._of(what), torch.arange(torch.Size(shape).numel(), dtype=torch.int32)).view(shape)

    def beta(self, what: str, alpha: float) -> Tensor:
        return mixing.shares(mixing.beta_quantiles(alpha)[None], self._of(what)[None])[0]


def network_of(setting: Recipe, seed: int, on: DeviceData, fold: int = 0) -> nn.Module:
    """With its initial weights on a fold, and dropout that takes a lane's keys."""
    network = build(StackKey.of(setting, on.inputs, on.outputs, on.categories, on.several).shape, LaneDropout)
    initialize(network, setting, seed, spread(on.x[on.train[fold]]))
    if on.start is not None and setting.word("fine_tune") != "off":
        adopt(network, on.start)
    return network


def alone(
    setting: Recipe, seed: int, on: DeviceData, epochs: int, *, network: nn.Module | None = None, fold: int = 0
) -> training.Trained:
    """Trained to the last epoch on the rows of a fold; ``network`` stands in for the recipe's own."""
    network = network or network_of(setting, seed, on, fold)
    depth = len(setting.widths)
    for layer in network.modules():
        if isinstance(layer, LaneDropout):
            layer.rate.fill_(setting.layers(layer.setting, depth)[layer.layer])
    valid = on.valid[fold][on.mask[fold] > 0]
    train = on.train[fold]
    weights = None if on.weights is None else on.weights[train]
    rows = training.Rows(on.x[train], on.y[train], on.x[valid], on.y[valid], weights)
    return training.train(network, setting, rows, epochs=epochs, seed=seed, chance=LaneChance(seed, network))
