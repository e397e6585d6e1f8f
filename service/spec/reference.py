"""The README's reference of the spec, generated from the models: `python -m service.spec.reference README.md`.

A test checks that what stands in the README is current.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from service.spec.domain import Choices, Domain, Fixed, PerLayer, Range
from service.spec.model import MODEL_SETTINGS, ModelSpec
from service.spec.parts import BudgetSpec, Conclude, DataSpec, EarlyStopping, ValidationSpec
from service.spec.pruners import Pruner
from service.spec.samplers import Sampler
from service.spec.setting import Setting
from service.spec.space import SPACE_SETTINGS
from service.spec.study import SETTINGS, StudySpec

BEGIN, END = "<!-- spec reference: generated -->", "<!-- end of spec reference -->"


def _named(title: str, union: Any) -> dict[str, type[BaseModel]]:
    """The members of a tagged union, by their names."""
    members = get_args(get_args(union)[0])
    return {f"{title}: {member.model_fields['name'].default}": member for member in members}


_PARTS: dict[str, type[BaseModel]] = {
    "data": DataSpec,
    "validation": ValidationSpec,
    "early_stopping": EarlyStopping,
    "budget": BudgetSpec,
    "budget.conclude": Conclude,
    **_named("sampler", Sampler),
    **_named("pruner", Pruner),
}

TESTS: dict[str, tuple[str, ...]] = {
    "penalties": ("test_equality.py", "test_techniques.py"),
    "dropout": ("test_equality.py", "test_families.py"),
    "balance": ("test_equality.py",),
    "noise": ("test_equality.py", "test_parts.py"),
    "normalization": ("test_equality.py", "test_models.py"),
    "optimizer": ("test_optimizers.py", "test_equality.py", "test_precision.py"),
    "augmentation": ("test_augmentation.py", "test_families.py"),
    "lr_schedule": ("test_parts.py",),
    "averaging": ("test_equality.py", "test_techniques.py"),
    "initialization": ("test_models.py",),
    "fine_tuning": ("test_fine_tuning.py",),
    "model": ("test_equality.py", "test_models.py", "test_families.py", "test_embeddings.py"),
}
"""Where the settings of each group are compared with an independent reference."""


def render() -> str:
    """The reference in Markdown."""
    return "\n".join([*_study(), *_settings(), *_techniques(), *_parts()]).rstrip() + "\n"


def updated(text: str) -> str:
    """A README with its reference made current."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{render()}\n{END}{after}"


def _study() -> Iterator[str]:
    yield "#### The study"
    yield ""
    yield from _fields(StudySpec)


def _settings() -> Iterator[str]:
    for title, settings in (("model", MODEL_SETTINGS), ("space", SPACE_SETTINGS)):
        yield f"#### `{title}`"
        yield ""
        if title == "model":
            plain = {name: field.description for name, field in ModelSpec.model_fields.items() if name not in settings}
            yield from (f"- `{name}`: {description}" for name, description in plain.items())
            yield ""
        yield "| setting | what it is | allowed | default | to search it | one per |"
        yield "|---|---|---|---|---|---|"
        yield from (_setting(name, setting) for name, setting in settings.items())
        yield ""


def _setting(name: str, setting: Setting) -> str:
    when = f" Only under `{setting.when.parent}` = {_or(setting.when.values)}." if setting.when else ""
    if setting.task:
        when += f" {setting.task.capitalize()} only."
    per_layer = "; one per layer" if setting.per_layer else ""
    allowed, search = setting.allowed() + per_layer, f"`{json.dumps(setting.searched.model_dump())}`"
    cells = (f"`{name}`", setting.doc + when, allowed, _domain(setting.search), search, setting.scope)
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    """Text that does not end its cell."""
    return cell.replace("|", "\\|")


def _techniques() -> Iterator[str]:
    yield "#### The techniques and the tests that prove them"
    yield ""
    yield "Compared with plain PyTorch, closed forms and distributions, alone and beside lanes with other values."
    yield ""
    yield "| technique | settings | one per | tests (in `tests/unit/stack`) |"
    yield "|---|---|---|---|"
    for group, tests in TESTS.items():
        settings = {name: setting for name, setting in SETTINGS.items() if setting.group == group}
        scopes = " or ".join(dict.fromkeys(setting.scope for setting in settings.values()))
        cells = (group, ", ".join(f"`{name}`" for name in settings), scopes, ", ".join(f"`{test}`" for test in tests))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _parts() -> Iterator[str]:
    for title, model in _PARTS.items():
        yield f"#### `{title}`"
        yield ""
        yield (model.__doc__ or "").strip().replace("``", "`")
        yield ""
        yield from _fields(model)


def _fields(model: type[BaseModel]) -> Iterator[str]:
    fields = {name: field for name, field in model.model_fields.items() if name != "name" or field.description}
    if not fields:
        return
    yield "| key | what it is | type | default |"
    yield "|---|---|---|---|"
    for name, field in fields.items():
        yield f"| `{name}` | {_about(name, field)} | {_type(field.annotation)} | {_default(field)} |"
    yield ""


def _about(name: str, field: FieldInfo) -> str:
    if field.description:
        return _escaped(field.description)
    return f"See `{name}` below."


def _type(annotation: Any) -> str:
    """A type in words."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in get_args(annotation) if part is not types.NoneType))
    if origin is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "part"
    words = {"str": "text", "int": "integer", "float": "number", "bool": "true, false"}
    return words.get(getattr(annotation, "__name__", ""), str(annotation))


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "–"
    if isinstance(default, BaseModel):
        name = getattr(default, "name", None)
        return f"`{name}`" if isinstance(name, str) else "see below"
    return "none" if default == () else f"`{default}`"


def _domain(domain: Domain) -> str:
    match domain:
        case Fixed(value=value):
            return f"{value}"
        case Choices(choices=choices):
            return f"one of {', '.join(map(str, choices))}"
        case PerLayer(per_layer=values):
            return ", ".join(map(str, values))
        case Range():
            log = ", log" if domain.log else ""
            off = ", or off" if domain.off else ""
            return f"{domain.low:g} to {domain.high:g}{log}{off}"


def _or(values: tuple[Any, ...]) -> str:
    return " or ".join(str(value) for value in values)


def main() -> None:
    """Rewrite the reference in the named file."""
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text()))


if __name__ == "__main__":
    main()
