"""The update rule, its learning rate and its batches."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Choices, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, When

PRECISIONS = ("float32", "tf32", "bfloat16")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta")


class Optimizer(Frozen):
    """The update rule, its learning rate and its batches."""

    optimizer: Annotated[Domain | None, Setting(
        group="optimizer", kind="word", words=OPTIMIZERS, neutral="adamw", scope="stack",
        search=Fixed(value="adamw"), advised=Choices(choices=("adamw", "sgd")),
        doc="Update rule, as in torch.optim. With each of them `weight_decay` is decoupled and `l2` coupled, so `adam` and "
        "`adamw` are the same.")] = None
    momentum: Annotated[Domain | None, Setting(
        group="optimizer", kind="float", low=0.0, high=0.999, neutral=0.9, search=Range(low=0.5, high=0.99),
        when=When("optimizer", ("sgd",)), doc="Momentum, as in torch.optim.SGD.")] = None
    nesterov: Annotated[Domain | None, Setting(
        group="optimizer", kind="bool", neutral=False, search=Fixed(value=False), advised=Choices(choices=(False, True)),
        when=When("optimizer", ("sgd",)), doc="Nesterov momentum, as in torch.optim.SGD.")] = None
    adam_beta1: Annotated[Domain | None, Setting(
        group="optimizer", kind="float", low=0.0, high=0.9999, neutral=0.9, search=Fixed(value=0.9),
        advised=Range(low=0.8, high=0.95), when=When("optimizer", ("adam", "adamw")), doc="β₁, decay of the first moment.",
    )] = None
    adam_beta2: Annotated[Domain | None, Setting(
        group="optimizer", kind="float", low=0.0, high=0.99999, neutral=0.999, search=Fixed(value=0.999),
        advised=Range(low=0.95, high=0.9999), when=When("optimizer", ("adam", "adamw")),
        doc="β₂, decay of the second moment.")] = None
    lr: Annotated[Domain | None, Setting(
        group="optimizer", kind="float", low=1e-7, high=10.0, neutral=1e-3,
        search=Range(low=3e-4, high=1e-2, log=True), doc="Peak learning rate.")] = None
    batch_size: Annotated[Domain | None, Setting(
        group="optimizer", kind="int", low=1, high=65536, neutral=128, scope="stack", search=Fixed(value=128),
        doc="Maximum batch size; an epoch is divided into equal batches of at most this size.")] = None
    micro_batches: Annotated[Domain | None, Setting(
        group="optimizer", kind="int", low=1, high=1024, neutral=1, scope="stack", search=Fixed(value=1),
        doc="Number of parts into which each batch is divided, so that only one of them is in memory (gradient accumulation); "
        "batch normalization uses the statistics of one part.")] = None
    precision: Annotated[Domain | None, Setting(
        group="optimizer", kind="word", words=PRECISIONS, neutral="float32", scope="stack", search=Fixed(value="float32"),
        doc="Arithmetic of training: `tf32` rounds the factors of matrix products on CUDA, `bfloat16` is automatic mixed "
        "precision. Weights, optimizer and evaluation remain in float32.")] = None
    clip_norm: Annotated[Domain | None, Setting(
        group="optimizer", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, search=Fixed(value=OFF),
        advised=Range(low=0.1, high=10.0, log=True, off=True),
        doc="Largest global norm of the gradient, as in torch.nn.utils.clip_grad_norm_.")] = None
    clip_value: Annotated[Domain | None, Setting(
        group="optimizer", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, search=Fixed(value=OFF),
        advised=Range(low=1e-3, high=1.0, log=True, off=True),
        doc="Largest absolute value of the gradient's elements, as in torch.nn.utils.clip_grad_value_; before `clip_norm`.",
    )] = None
