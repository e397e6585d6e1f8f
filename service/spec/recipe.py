"""A recipe: the value of every setting with which a trial is trained.

The values are plain (numbers, words, tuples of numbers), and `off` is already replaced by the setting's neutral value, so
that `workers` read them by name and do not depend on domains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.spec.domain import OFF
from service.spec.model import MODULE
from service.spec.modules import ARGUMENT
from service.spec.setting import Setting
from service.spec.study import SETTINGS

ARCHITECTURE = tuple(
    name
    for name, setting in SETTINGS.items()
    if setting.scope == "stack" and setting.group in ("model", "normalization") and name not in ("width", "depth")
)
"""The settings on which the shapes and the meaning of a network's weights depend, apart from its widths."""
GROWTH: Mapping[str, int] = {"mlp": 1, "cnn": 2, "sequence": 1, MODULE: 1}
"""Ratio of the widths of successive layers, by family, if a single width is given."""

NO_SETTINGS = ("widths", "quantile", "module", "dropout_after", "dropout_layers", "freeze")
"""What a recipe may have besides the settings and a module's arguments: the hidden layers' widths, the level of the quantile
that is predicted, the module and what is done to its layers."""

Value = bool | int | float | str | tuple[float, ...]


class Recipe(Mapping[str, Value]):
    """An immutable mapping from settings to values; omitted settings have their neutral values.

    Raises:
        KeyError: A name is not a setting.

    >>> Recipe({"dropout": 0.5}).number("dropout"), Recipe({}).word("optimizer")
    (0.5, 'adamw')
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        unknown = sorted(
            name for name in values if name not in SETTINGS and name not in NO_SETTINGS and not name.startswith(ARGUMENT)
        )
        if unknown:
            raise KeyError(f"unknown settings: {unknown}")
        self._values: dict[str, Value] = {**{name: s.neutral for name, s in SETTINGS.items()}, **values}

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._values.items(), key=lambda item: item[0])))

    def __repr__(self) -> str:
        return f"Recipe({self.said()})"

    def number(self, name: str) -> float:
        """A numeric setting as a float."""
        value = self._values[name]
        assert isinstance(value, int | float), f"{name} is not a number: {value!r}"
        return float(value)

    def integer(self, name: str) -> int:
        """An integer setting."""
        return int(self.number(name))

    def flag(self, name: str) -> bool:
        """A boolean setting."""
        return self._values[name] is True

    def word(self, name: str) -> str:
        """A word setting."""
        return str(self._values[name])

    def layers(self, name: str, depth: int) -> tuple[float, ...]:
        """One value for each of ``depth`` hidden layers; a single value is repeated."""
        value = self._values[name]
        return value if isinstance(value, tuple) else (self.number(name),) * depth

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each hidden layer, or channels of each stage of a CNN."""
        if self.word("family") == MODULE:
            return ()
        widths = self._values.get("widths")
        if isinstance(widths, tuple):
            return tuple(int(width) for width in widths)
        growth = GROWTH[self.word("family")]
        return tuple(self.integer("width") * growth**layer for layer in range(self.integer("depth")))

    def effective(self) -> dict[str, Value]:
        """The settings that have an effect, and always the ``widths``."""
        matters = {name: value for name, value in self._values.items() if self._matters(name, SETTINGS.get(name))}
        return {**matters, "widths": self.widths}

    def said(self) -> dict[str, Any]:
        """The settings that have an effect, as JSON: their conditions hold and they are not off. In the space's order."""
        return {name: value for name, value in self.to_json().items() if self._matters(name, SETTINGS.get(name))}

    def _matters(self, name: str, setting: Setting | None) -> bool:
        if setting is None:
            return True
        if self._values["family"] == MODULE and name in ("width", "depth", "activation"):
            return False
        if name in ("width", "depth"):
            return "widths" not in self._values
        if setting.when is not None and self._values[setting.when.parent] not in setting.when.values:
            return False
        return not ((setting.regularizer or setting.off) and self._values[name] == setting.neutral)

    def regularizers(self) -> tuple[str, ...]:
        """The regularizers that are on."""
        return tuple(name for name in self.said() if name in SETTINGS and SETTINGS[name].regularizer)

    def removable(self) -> tuple[str, ...]:
        """The regularizers that are on and can be switched off: not those that the initial weights of fine-tuning need."""
        return tuple(name for name in self.regularizers() if not self._belongs(name))

    def _belongs(self, name: str) -> bool:
        return self.word("fine_tune") != OFF and name in ARCHITECTURE

    def without(self, *names: str) -> Recipe:
        """A recipe with the named settings at their neutral values, except those that its initial weights need."""
        return Recipe({**self._values, **{name: SETTINGS[name].neutral for name in names if not self._belongs(name)}})

    def unregularized(self) -> Recipe:
        """The baseline: the same network, initial weights and optimizer, with all regularizers off and no weights frozen."""
        return self.without(*(name for name, setting in SETTINGS.items() if setting.regularizer)).thawed()

    def thawed(self) -> Recipe:
        """The same recipe with no weights frozen."""
        return Recipe({**self._values, "fine_tune": "all"}) if self.word("fine_tune") == "head" else self

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._values.items()}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_json`."""
        return cls({name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()})
