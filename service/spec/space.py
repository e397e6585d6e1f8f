"""The regularization space: all groups of settings, the presets, and the check of conditions.

A new setting is one field in its group's module (`service.spec.groups`); `workers.stack` implements its effect and reads
per-lane settings by name. Checks, Optuna distributions, baseline, ablation and reference follow from the declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from service.spec.domain import OFF, Choices, Domain, Fixed, Range
from service.spec.groups.augmentation import Augmentation
from service.spec.groups.averaging import Averaging
from service.spec.groups.balance import Balance
from service.spec.groups.dropout import Dropout
from service.spec.groups.initialization import Initialization
from service.spec.groups.loss import Loss
from service.spec.groups.lr_schedule import LrSchedule
from service.spec.groups.noise import Noise
from service.spec.groups.normalization import Normalization
from service.spec.groups.optimizer import Optimizer
from service.spec.groups.penalties import Penalties
from service.spec.setting import Setting, refuse_unmet, settings_of


# The settings of the last base come first: in the space, in the reference and in the order of sampling.
class Space(
    Initialization, Averaging, LrSchedule, Optimizer, Loss, Balance, Noise, Augmentation, Normalization, Dropout, Penalties
):
    """The domain of each setting. Omitted settings have the domains of the preset."""

    preset: Literal[
        "tabular", "realmlp", "tabm", "default", "minimal", "cocktail", "images", "sequences", "modules", "off"
    ] = Field(
        "default",
        description="Domains of omitted settings; if omitted itself, `tabular` for an `mlp` that is trained from scratch, "
        "else `default`. `tabular` searches regularizers of a strong network for tables, whose settings it determines too, "
        "`realmlp` the same at that network's published width and learning rate (Holzmüller et al. 2024, for an `mlp`), "
        "`tabm` weight decay and dropout of 32 members of one network with its published settings (Gorishniy et al. 2025), "
        "`default` searches the usual ones of a plain network, `minimal` only weight decay and "
        "dropout, `cocktail` the regularizers of Kadra et al. 2021 (for an `mlp`), `images` those suitable for a `cnn` "
        "(flips, mild rotation, shift and zoom, cutout, cutmix, normalization, dropout, decay), `sequences` those suitable "
        "for a `sequence`, `modules` those around a module (weight decay, dropout, clipping, learning rate), "
        "for which it is the default, `off` none.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        preset = raw.get("preset", "default")
        defaults = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
        given = {key: value for key, value in raw.items() if value is not None}
        # Of the preset's conditional settings those remain whose condition is the preset's own.
        parents = {name: when.parent for name in defaults if (when := SPACE_SETTINGS[name].when) is not None}
        return {**{key: value for key, value in defaults.items() if parents.get(key) not in given}, **given}

    @model_validator(mode="after")
    def _conditions_can_hold(self) -> Space:
        own = {name: getattr(self, name) for name in SPACE_SETTINGS}
        refuse_unmet(SPACE_SETTINGS, own, own)
        return self


SPACE_SETTINGS: Mapping[str, Setting] = settings_of(Space)


def _preset(searched: set[str]) -> dict[str, Domain]:
    """All unconditional settings: those in ``searched`` with the domain for searching them, others with neutral values."""
    return {
        name: setting.searched if name in searched else Fixed(value=setting.neutral)
        for name, setting in SPACE_SETTINGS.items()
        if setting.when is None
    }


def _advised(*names: str) -> dict[str, Domain]:
    return {name: SPACE_SETTINGS[name].searched for name in names}


# About half of these are on in a random trial, and even then a small network must learn within some tens of epochs; the
# ranges advised for a single one are too wide for that. Shear is omitted: rotation and zoom have similar effects.
_IMAGES: dict[str, Domain] = {
    **_preset(set()),
    **_advised("cutmix"),
    "weight_decay": Range(low=1e-2, high=3.0, log=True, off=True),
    "dropout": Range(low=0.02, high=0.2, off=True),
    "head_dropout": Range(low=0.05, high=0.5, off=True),
    "normalization": Choices(choices=("none", "batch", "group")),
    "rotation": Range(low=2.0, high=15.0, off=True),
    "shift": Range(low=0.02, high=0.12, off=True),
    "zoom": Range(low=0.02, high=0.2, off=True),
    "horizontal_flip": Choices(choices=(OFF, 0.5)),
    "cutout": Range(low=0.1, high=0.5, off=True),
    "lr": Range(low=5e-4, high=1e-2, log=True),
    "lr_schedule": Choices(choices=("constant", "cosine", "one_cycle")),
}
_SEQUENCES: dict[str, Domain] = {
    **_preset({"weight_decay", "dropout", "input_dropout", "lr", "lr_schedule"}),
    **_advised("head_dropout", "clip_norm"),
    "normalization": Choices(choices=("none", "layer")),
}

_MODULES: dict[str, Domain] = {
    **_preset({"weight_decay", "dropout", "lr", "lr_schedule"}),
    **_advised("clip_norm"),
}

_DEFAULT = {name: setting.search for name, setting in SPACE_SETTINGS.items() if setting.when is None}

# Kadra et al., "Well-tuned simple nets excel on tabular datasets" (NeurIPS 2021), table 1: weight decay, batch
# normalization, dropout, skip connections, mixup, cutmix, cutout and snapshots, under cosine annealing with restarts and
# balanced classes; see `presets` for the epochs. Left out is stochastic weight averaging, which loses 0.5 points in the
# median of their own runs; not there are Shake-Shake, Shake-Drop, lookahead, adversarial training.
_COCKTAIL: dict[str, Domain] = {
    **_preset({"weight_decay", "dropout", "mixup", "feature_masking", "lr"}),
    **_advised("cutmix"),
    "normalization": Choices(choices=("none", "batch")),
    "class_weights": Fixed(value=1.0),
    "skip_connections": Choices(choices=(False, True)),
    "lr_schedule": Fixed(value="warm_restarts"),
    "restart_period": Fixed(value=15),
    "snapshots": Choices(choices=(False, True)),
}

# See `presets` for the network that belongs to it, and for what depends on the task.
_TABULAR: dict[str, Domain] = {
    **{name: domain for name, domain in _preset(set()).items() if name not in ("lr", "label_smoothing")},
    "dropout": Range(low=0.03, high=0.5, off=True),
    "weight_decay": Range(low=1e-2, high=10.0, log=True, off=True),
    "l1": Range(low=1e-6, high=1e-3, log=True, off=True),
    "feature_masking": Range(low=0.02, high=0.3, off=True),
    "dropout_schedule": Fixed(value="flat_cosine"),
    "weight_decay_schedule": Fixed(value="flat_cosine"),
    "lr_schedule": Fixed(value="coslog4"),
    "adam_beta2": Fixed(value=0.95),
}

# See `presets` for the network that belongs to it.
_TABM_SPACE: dict[str, Domain] = {
    **_preset(set()),
    "lr": Fixed(value=2e-3),
    "weight_decay": Range(low=1e-4, high=1.0, log=True, off=True),
    "dropout": Range(low=0.03, high=0.5, off=True),
}

PRESETS: Mapping[str, Mapping[str, Domain]] = {
    "tabular": _TABULAR,
    "realmlp": _TABULAR,
    "tabm": _TABM_SPACE,
    "default": _DEFAULT,
    "minimal": _preset({"weight_decay", "dropout"}),
    "images": _IMAGES,
    "sequences": _SEQUENCES,
    "cocktail": _COCKTAIL,
    "modules": _MODULES,
    "off": _preset(set()),
}
