"""Techniques: parts of the update that a stack computes only once one of its lanes has them on. One file each.

A technique's file holds its columns, when it is on, and its place in the update (see `base`). It is found by being here: a
file defines ``TECHNIQUES``. For lanes that have it off its neutral columns change nothing, not even in the last bit.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping

from service.spec import Domain, Recipe
from workers.stack.techniques.base import Batch, Columns, Step, Technique

__all__ = ["TECHNIQUES", "Batch", "Columns", "Step", "Technique", "techniques_in", "techniques_of"]


def _found() -> tuple[Technique, ...]:
    """All of them, in the order in which an update comes to them."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    found = [technique for module in modules for technique in module.TECHNIQUES]
    return tuple(sorted(found, key=lambda technique: technique.order))


TECHNIQUES = _found()


def techniques_of(recipes: Iterable[Recipe]) -> frozenset[str]:
    """The techniques that at least one of the recipes has on."""
    return frozenset(each.name for recipe in recipes for each in TECHNIQUES if each.is_on(recipe))


def techniques_in(domains: Mapping[str, Domain]) -> frozenset[str]:
    """The techniques that some recipe of a study's ``domains`` may have on."""
    return frozenset(each.name for each in TECHNIQUES if each.can_be_on(domains))
