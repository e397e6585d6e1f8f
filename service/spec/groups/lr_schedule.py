"""Schedules of the learning rate."""

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
    "coslog4",
    "flat_cosine",
    "plateau",
)


class LrSchedule(Frozen):
    """Schedules of the learning rate."""

    lr_schedule: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="word", words=SCHEDULES, neutral="constant",
        search=Choices(choices=("constant", "cosine")),
        advised=Choices(choices=("constant", "cosine", "warm_restarts", "one_cycle")),
        doc="Schedule of the learning rate, stepped after each epoch (`one_cycle` and `coslog4`: after each update). With t the "
        "fraction of epochs done, `coslog4` is (1 − cos(2π·log₂(1 + 15t)))/2, four cycles of which each is twice as long as "
        "the one before (Holzmüller et al. 2024); `flat_cosine` is 1 until t = 1/2, then a cosine to 0.")] = None
    warmup_epochs: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=0, high=1000, neutral=0, search=Fixed(value=0),
        doc="Epochs of linear warmup before the schedule, stepped after each update.")] = None
    step_every: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=1, high=10000, neutral=10, search=Range(low=5, high=40),
        when=When("lr_schedule", ("step",)), doc="Epochs between two steps.")] = None
    step_gamma: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.5, search=Range(low=0.1, high=0.9),
        when=When("lr_schedule", ("step",)), doc="Factor at each step.")] = None
    piecewise_first: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.5, search=Range(low=0.2, high=0.6),
        when=When("lr_schedule", ("piecewise",)), doc="First milestone, as a fraction of all epochs.")] = None
    piecewise_second: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.75, search=Range(low=0.6, high=0.9),
        when=When("lr_schedule", ("piecewise",)), doc="Second milestone, as a fraction of all epochs.")] = None
    piecewise_gamma: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.1, search=Range(low=0.05, high=0.5),
        when=When("lr_schedule", ("piecewise",)), doc="Factor at each milestone.")] = None
    polynomial_power: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=10.0, neutral=1.0, search=Range(low=0.5, high=3.0),
        when=When("lr_schedule", ("polynomial",)), doc="p of (1 − t)ᵖ, with t the fraction of epochs done; 1 is linear.",
    )] = None
    decay_rate: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=100.0, neutral=3.0, search=Range(low=1.0, high=6.0),
        when=When("lr_schedule", ("natural_exponential", "inverse_time")),
        doc="r of exp(−r·t) or 1 / (1 + r·t), with t the fraction of epochs done.")] = None
    linear_cosine_periods: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=100.0, neutral=0.5, search=Fixed(value=0.5),
        when=When("lr_schedule", ("linear_cosine", "noisy_linear_cosine")),
        doc="n of (α + 1 − t)·(1 + cos 2πnt)/2 + β, with α = 0 and β = 0.001 (Bello et al. 2017).")] = None
    noise_variance: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=10.0, neutral=1.0, search=Range(low=0.1, high=1.0),
        when=When("lr_schedule", ("noisy_linear_cosine",)),
        doc="v of the variance v / (1 + epoch)^`noise_decay` of the noise on the linear part; negative rates become 0.",
    )] = None
    noise_decay: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=10.0, neutral=0.55, search=Fixed(value=0.55),
        when=When("lr_schedule", ("noisy_linear_cosine",)), doc="Decay of the variance of the noise.")] = None
    one_cycle_rise: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.3, search=Range(low=0.1, high=0.5),
        when=When("lr_schedule", ("one_cycle",)), doc="Fraction of the updates during which the rate rises (Smith 2018).",
    )] = None
    one_cycle_divisor: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=1.0, high=10000.0, neutral=25.0, search=Fixed(value=25.0),
        when=When("lr_schedule", ("one_cycle",)), doc="The initial rate is `lr` divided by this; the final one is 10⁴ times lower.",
    )] = None
    exponential_gamma: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.97, search=Range(low=0.9, high=0.999),
        when=When("lr_schedule", ("exponential",)), doc="Factor after each epoch.")] = None
    cosine_floor: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.0, search=Fixed(value=0.0),
        when=When("lr_schedule", ("cosine", "warm_restarts")), doc="Lowest learning rate, as a fraction of `lr`.")] = None
    restart_period: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=1, high=10000, neutral=10, search=Range(low=5, high=30),
        when=When("lr_schedule", ("warm_restarts",)), doc="Epochs of the first cycle (T₀ of Loshchilov and Hutter 2017).",
    )] = None
    restart_mult: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=1, high=10, neutral=2, search=Fixed(value=2),
        when=When("lr_schedule", ("warm_restarts",)), doc="Factor by which each cycle is longer than the one before.",
    )] = None
    snapshots: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="bool", neutral=False, regularizer=True,
        search=Fixed(value=False), advised=Choices(choices=(False, True)), when=When("lr_schedule", ("warm_restarts",)),
        doc="Whether the weights at the end of each cycle are kept as networks of their own, whose predictions are averaged "
        "with those of the present weights: a trial is judged, and its network delivered, as this average (Huang et al. "
        "2017). Needs `early_stopping: off`.")] = None
    plateau_patience: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="int", low=0, high=10000, neutral=5, search=Range(low=2, high=15),
        when=When("lr_schedule", ("plateau",)), doc="Epochs without improvement of the validation value before a reduction.",
    )] = None
    plateau_factor: Annotated[Domain | None, Setting(
        group="lr_schedule", kind="float", low=0.0, high=1.0, neutral=0.5, search=Range(low=0.1, high=0.8),
        when=When("lr_schedule", ("plateau",)), doc="Factor at each reduction.")] = None
