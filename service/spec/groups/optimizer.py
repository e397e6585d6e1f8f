"""The update rule, its learning rate and its batches."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, When


class Optimizer(Frozen):
    """The update rule, its learning rate and its batches."""

    optimizer: Annotated[Domain | None, Setting(
        group="optimizer", kind="word", words=("sgd", "adamw"), neutral="adamw", scope="stack",
        search=Fixed(value="adamw"), doc="Update rule. `weight_decay` is decoupled under each of them.")] = None
    momentum: Annotated[Domain | None, Setting(
        group="optimizer", kind="float", low=0.0, high=0.999, neutral=0.9, search=Range(low=0.5, high=0.99),
        when=When("optimizer", ("sgd",)), doc="Momentum of sgd, as in torch.optim.SGD.")] = None
    lr: Annotated[Domain | None, Setting(
        group="optimizer", kind="float", low=1e-7, high=10.0, neutral=1e-3,
        search=Range(low=3e-4, high=1e-2, log=True), doc="Peak learning rate.")] = None
    batch_size: Annotated[Domain | None, Setting(
        group="optimizer", kind="int", low=1, high=65536, neutral=128, scope="stack", search=Fixed(value=128),
        doc="Largest batch; an epoch is cut into equal batches no larger than this.")] = None
    clip_norm: Annotated[Domain | None, Setting(
        group="optimizer", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, search=Fixed(value=OFF),
        doc="Largest global norm of a lane's gradient, as torch.nn.utils.clip_grad_norm_.")] = None
