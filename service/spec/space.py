"""The regularization space: one declaration per setting. This is the place to add one.

A new setting is one field here; its effect goes into `workers.stack` (per-lane settings are read there by name). Checks,
Optuna distributions, the baseline, the ablation and the README's reference follow from the declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from service.spec.domain import OFF, Choices, Domain, Fixed, Frozen, Range, possible_values
from service.spec.setting import Setting, When, settings_of

SCHEDULES = ("constant", "step", "exponential", "cosine", "warm_restarts", "plateau")


class Space(Frozen):
    """Which settings are searched, and where. What is not named comes from the preset."""

    preset: Literal["default", "minimal", "off"] = Field(
        "default",
        description="Where unnamed settings come from: `default` searches the usual ones, `minimal` only weight decay "
        "and dropout, `off` none.",
    )

    l1: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=10.0, neutral=0.0, off=True, regularizer=True,
        search=Range(low=1e-6, high=1e-2, log=True, off=True),
        doc="λ of the L1 penalty λ·‖w‖₁ in the loss; weights only. With l2: elastic net.")] = None
    l2: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=10.0, neutral=0.0, off=True, regularizer=True,
        search=Fixed(value=OFF),
        doc="λ of the L2 penalty λ/2·‖w‖² in the loss (gradient λ·w, as torch.optim's coupled weight_decay); weights only.",
    )] = None
    weight_decay: Annotated[Domain | None, Setting(
        group="penalties", kind="float", low=0.0, high=1000.0, neutral=0.0, off=True, regularizer=True,
        search=Range(low=1e-2, high=30.0, log=True, off=True),
        doc="Decoupled weight decay: w ← w·max(0, 1 − lr·λ) at every update (Loshchilov and Hutter 2019); weights only.",
    )] = None

    dropout: Annotated[Domain | None, Setting(
        group="dropout", kind="float", low=0.0, high=0.95, neutral=0.0, off=True, regularizer=True, per_layer=True,
        search=Range(low=0.05, high=0.75, off=True),
        doc="Rate at which hidden activations are zeroed, one for all layers or one per layer (Srivastava et al. 2014).",
    )] = None
    input_dropout: Annotated[Domain | None, Setting(
        group="dropout", kind="float", low=0.0, high=0.95, neutral=0.0, off=True, regularizer=True,
        search=Range(low=0.02, high=0.3, off=True),
        doc="Rate at which input features are zeroed.")] = None

    normalization: Annotated[Domain | None, Setting(
        group="normalization", kind="word", words=("none", "batch", "layer", "group", "weight"), neutral="none",
        regularizer=True, scope="stack", search=Choices(choices=("none", "batch", "layer")),
        doc="Normalization behind every hidden linear layer (`weight`: of its weights; Salimans and Kingma 2016).")] = None
    normalization_groups: Annotated[Domain | None, Setting(
        group="normalization", kind="int", low=1, high=1024, neutral=8, scope="stack", search=Fixed(value=8),
        when=When("normalization", ("group",)),
        doc="Number of groups; lowered to its greatest common divisor with the width.")] = None

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

    init: Annotated[Domain | None, Setting(
        group="initialization", kind="word", words=("he", "xavier"), neutral="he", search=Fixed(value="he"),
        doc="Initial weights: He et al. 2015 or Glorot and Bengio 2010; biases start at zero.")] = None
    init_distribution: Annotated[Domain | None, Setting(
        group="initialization", kind="word", words=("uniform", "normal"), neutral="uniform",
        search=Fixed(value="uniform"), when=When("init", ("he", "xavier")), doc="Distribution of the initial weights.",
    )] = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        preset = raw.get("preset", "default")
        defaults = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
        return {**defaults, **{key: value for key, value in raw.items() if value is not None}}

    @model_validator(mode="after")
    def _conditions_can_hold(self) -> Space:
        for name, setting in SPACE_SETTINGS.items():
            given: Domain | None = getattr(self, name)
            if given is None or setting.when is None:
                continue
            parent: Domain = getattr(self, setting.when.parent)
            if not set(possible_values(parent) or ()) & set(setting.when.values):
                allowed = f"{setting.when.parent} = {' or '.join(map(str, setting.when.values))}"
                raise PydanticCustomError(
                    "condition",
                    "only makes sense under {allowed}, which this space never takes",
                    {"key": name, "value": given.model_dump(), "allowed": allowed},
                )
        return self


SPACE_SETTINGS: Mapping[str, Setting] = settings_of(Space)


def _preset(searched: set[str] | None) -> dict[str, Domain]:
    """Every unconditional setting: its search domain if ``searched`` holds it (None: all do), else its neutral value."""
    return {
        name: setting.search if searched is None or name in searched else Fixed(value=setting.neutral)
        for name, setting in SPACE_SETTINGS.items()
        if setting.when is None
    }


PRESETS: Mapping[str, Mapping[str, Domain]] = {
    "default": _preset(None),
    "minimal": _preset({"weight_decay", "dropout"}),
    "off": _preset(set()),
}
