"""Reading a study from a YAML or JSON file."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from service.errors import RegsearchError


def read_study(file: Path) -> Any:
    """A study from YAML 1.2, where `off` is a word and 1e-4 a number; JSON is YAML too.

    Raises:
        RegsearchError: The file is not YAML, or contains values that JSON can't represent.
    """
    try:
        found = YAML(typ="safe", pure=True).load(file.read_text())
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RegsearchError(f"{file} is not YAML: {error}") from None
    try:
        return json.loads(json.dumps(found, allow_nan=False, default=_day))
    except (TypeError, ValueError, RecursionError) as error:
        raise RegsearchError(f"{file} contains a value that JSON can't represent: {error}") from None


def _day(value: Any) -> str:
    """The text of a date: YAML reads 2026-01-31 as one, a study means the text."""
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{value!r}")
