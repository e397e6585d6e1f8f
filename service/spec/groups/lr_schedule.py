"""The course of the learning rate."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import Choices, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, When

SCHEDULES = (
    "constant",
    "step",
    "piecewise",
    "polynomial",
    "exponential",
    "natural_exponential",
    "inverse_time",
    "cosine",
    "linear_cosine",
    "noisy_linear_cosine",
    "warm_restarts",
    "one_cycle",
    "plateau",
)


class LrSchedule(Frozen):
    """The course of the learning rate."""

    lr_schedule: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="word", words=SCHEDULES, neutral="constant",
        search=Choices(choices=("constant", "cosine")),
        advised=Choices(choices=("constant", "cosine", "warm_restarts", "one_cycle")),
        doc="Course of the learning rate, stepped once per epoch (one_cycle: in every update).")] = None
    warmup_epochs: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=0, high=1000, neutral=0, search=Fixed(value=0),
        doc="Epochs of linear warmup, in every update, in front of the schedule.")] = None
    step_every: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=1, high=10000, neutral=10, search=Range(low=5, high=40),
        when=When("lr_schedule", ("step",)), doc="Epochs between two steps.")] = None
    step_gamma: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.5, search=Range(low=0.1, high=0.9),
        when=When("lr_schedule", ("step",)), doc="Factor at every step.")] = None
    piecewise_first: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.5, search=Range(low=0.2, high=0.6),
        when=When("lr_schedule", ("piecewise",)), doc="First milestone, as a share of all epochs.")] = None
    piecewise_second: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.75, search=Range(low=0.6, high=0.9),
        when=When("lr_schedule", ("piecewise",)), doc="Second milestone, as a share of all epochs.")] = None
    piecewise_gamma: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.1, search=Range(low=0.05, high=0.5),
        when=When("lr_schedule", ("piecewise",)), doc="Factor at each milestone.")] = None
    polynomial_power: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=10.0, neutral=1.0, search=Range(low=0.5, high=3.0),
        when=When("lr_schedule", ("polynomial",)), doc="Power p of (1 − t)ᵖ, t the share of epochs done; 1 is linear.",
    )] = None
    decay_rate: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=100.0, neutral=3.0, search=Range(low=1.0, high=6.0),
        when=When("lr_schedule", ("natural_exponential", "inverse_time")),
        doc="r of exp(−r·t) or 1 / (1 + r·t), t the share of epochs done.")] = None
    linear_cosine_periods: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=100.0, neutral=0.5, search=Fixed(value=0.5),
        when=When("lr_schedule", ("linear_cosine", "noisy_linear_cosine")),
        doc="n of (α + 1 − t)·(1 + cos 2πnt)/2 + β (Bello et al. 2017), with α = 0 and β = 0.001.")] = None
    noise_variance: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=10.0, neutral=1.0, search=Range(low=0.1, high=1.0),
        when=When("lr_schedule", ("noisy_linear_cosine",)),
        doc="Variance v of the noise on the linear part, v / (1 + epoch)^`noise_decay`; negative rates become 0.")] = None
    noise_decay: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=10.0, neutral=0.55, search=Fixed(value=0.55),
        when=When("lr_schedule", ("noisy_linear_cosine",)), doc="Decay of the noise's variance.")] = None
    one_cycle_rise: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.3, search=Range(low=0.1, high=0.5),
        when=When("lr_schedule", ("one_cycle",)), doc="Share of the updates in which the rate rises (Smith 2018).")] = None
    one_cycle_divisor: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=1.0, high=10000.0, neutral=25.0, search=Fixed(value=25.0),
        when=When("lr_schedule", ("one_cycle",)), doc="The rate begins at `lr` over this; it ends 10⁴ times lower still.",
    )] = None
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
