"""Modules of the users' own: what workers have published, and the check of a study that names one.

What a module is stands in `workers.modules`; here only its published signature is known.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from service.api.issues import validated
from service.api.problems import answers
from service.datasets import BuiltinFacts, TableInfo
from service.datasets.weights import hash_of_weights, held_weights, weights_object
from service.errors import InvalidInput
from service.objects import open_objects
from service.settings import Settings
from service.spec import StudySpec
from service.spec.domain import can_leave
from service.spec.groups.augmentation import Augmentation
from service.spec.modules import Layout, ModuleSchema, argument_issues, as_published
from service.spec.setting import settings_of
from service.store import Store

_LAYOUTS: Mapping[int, tuple[Layout, ...]] = {1: ("flat",), 2: ("sequence", "image", "flat"), 3: ("image", "flat")}
"""How examples can be read, by their number of axes; the first is usual."""


def router(store: Store) -> APIRouter:
    """/v1/modules."""
    routes = APIRouter(tags=["modules"])

    @routes.get("/v1/modules", responses=answers())
    def modules() -> list[ModuleSchema]:
        """Networks of your own that studies may name, with their arguments, or why they can't be used."""
        return published(store)

    return routes


def published(store: Store) -> list[ModuleSchema]:
    """The modules that workers have published."""
    return [ModuleSchema.model_validate(document) for document in store.modules.list()]


def check_module(spec: StudySpec, table: TableInfo, store: Store, settings: Settings) -> StudySpec:
    """A study of a module with its arguments as the signature has them, how an example is read, and the hash of its weights.

    Its file of weights must be below a directory of the ``settings``.

    Raises:
        InvalidInput: The module is not there, can't be used, or takes other arguments; or the data can't be read so.
    """
    name = spec.model.module
    if name is None:
        return spec
    known = {schema.name: schema for schema in published(store)}
    if name not in known:
        allowed = sorted(each for each, schema in known.items() if schema.error is None)
        allowed = allowed or ["none: no worker has published any (see REGSEARCH_MODULES)"]
        raise InvalidInput.one("model.module", "is not one that a worker has published", value=name, allowed=allowed)
    if (reason := known[name].error) is not None:
        raise InvalidInput.one("model.module", f"can't be used: {reason}", value=name, allowed="a module without this error")
    issues = [*argument_issues(known[name], spec.model.args)]
    if issues:
        raise InvalidInput(issues)
    layout = _layout(spec, table)
    _check_augmentation(spec, layout)
    arguments = as_published(known[name], spec.model.args)
    raw = spec.model_dump(mode="json", exclude_unset=True)
    raw["model"] |= {"reads": layout, "args": {each: domain.model_dump(mode="json") for each, domain in arguments.items()}}
    if spec.model.weights is not None:
        raw["model"]["weights_sha256"] = _hash(spec, spec.model.weights, settings)
    return validated(raw)


def _hash(spec: StudySpec, path: str, settings: Settings) -> str:
    """The hash of a file of weights, which workers elsewhere get from the store of objects."""
    with held_weights(path, settings.weights_roots) as found:
        sha256 = hash_of_weights(found, path)
        if spec.model.weights_sha256 not in (None, sha256):
            message = "is not that of the file"
            raise InvalidInput.one("model.weights_sha256", message, value=spec.model.weights_sha256, allowed=sha256)
        objects = open_objects(settings)
        if objects.remote:
            objects.put(weights_object(sha256), found)
    return sha256


def _layout(spec: StudySpec, table: TableInfo) -> Layout:
    """How the module gets an example: as asked, or as the data has it."""
    axes = len(table.shape)
    if isinstance(table, BuiltinFacts):
        axes = 3 if table.image else 1
    allowed = _LAYOUTS[axes]
    asked = spec.model.reads
    if asked is not None and asked not in allowed:
        message = f"does not fit the data, whose examples have the shape {tuple(table.shape)}"
        raise InvalidInput.one("model.reads", message, value=asked, allowed=list(allowed))
    return asked or allowed[0]


def _check_augmentation(spec: StudySpec, layout: Layout) -> None:
    if layout == "image":
        return
    for name, setting in settings_of(Augmentation).items():
        given = getattr(spec.space, name)
        if given is not None and can_leave(given, setting.neutral):
            message = f"is for images, and {layout} data are none"
            raise InvalidInput.one(f"space.{name}", message, value=given.model_dump(mode="json"), allowed="off")
