"""The course of the learning rate."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import Choices, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, When

SCHEDULES = ("constant", "step", "exponential", "cosine", "warm_restarts", "plateau")


class LrSchedule(Frozen):
    """The course of the learning rate."""

    lr_schedule: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="word", words=SCHEDULES, neutral="constant",
        search=Choices(choices=("constant", "cosine")), doc="Course of the learning rate, stepped once per epoch.")] = None
    warmup_epochs: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=0, high=1000, neutral=0, search=Fixed(value=0),
        doc="Epochs of linear warmup, in every update, in front of the schedule.")] = None
    step_every: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=1, high=10000, neutral=10, search=Range(low=5, high=40),
        when=When("lr_schedule", ("step",)), doc="Epochs between two steps.")] = None
    step_gamma: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.5, search=Range(low=0.1, high=0.9),
        when=When("lr_schedule", ("step",)), doc="Factor at every step.")] = None
    exponential_gamma: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.97, search=Range(low=0.9, high=0.999),
        when=When("lr_schedule", ("exponential",)), doc="Factor in every epoch.")] = None
    cosine_floor: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.0, search=Fixed(value=0.0),
        when=When("lr_schedule", ("cosine", "warm_restarts")), doc="Lowest learning rate, as a share of `lr`.")] = None
    restart_period: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=1, high=10000, neutral=10, search=Range(low=5, high=30),
        when=When("lr_schedule", ("warm_restarts",)), doc="Epochs of the first cycle (T0 of Loshchilov and Hutter 2017).",
    )] = None
    restart_mult: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=1, high=10, neutral=2, search=Fixed(value=2),
        when=When("lr_schedule", ("warm_restarts",)), doc="Each cycle is this many times as long as the one before.",
    )] = None
    plateau_patience: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=0, high=10000, neutral=5, search=Range(low=2, high=15),
        when=When("lr_schedule", ("plateau",)), doc="Epochs without a better validation value before a reduction.")] = None
    plateau_factor: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.5, search=Range(low=0.1, high=0.8),
        when=When("lr_schedule", ("plateau",)), doc="Factor at every reduction.")] = None
