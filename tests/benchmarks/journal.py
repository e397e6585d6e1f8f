"""Measurements that take long, kept one by one: a benchmark that is started again goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Journal:
    """A file with one measurement per line, each under its own name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.kept: dict[str, Any] = {line["name"]: line["figures"] for line in map(json.loads, lines)}

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """The measurement of this name, taken now unless the journal has it."""
        if name not in self.kept:
            self.kept[name] = measure()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps({"name": name, "figures": self.kept[name]}) + "\n")
        return self.kept[name]
