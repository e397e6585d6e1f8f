"""Programs that are compiled ahead are those that a default study asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.spec import StudySpec
from tests.benchmarks.one_process import run_study
from workers import warm
from workers.stack.blueprint import Blueprint, Part
from workers.stack.workshop import Workshop


def test_what_is_compiled_ahead_is_what_a_study_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()

    def find(self: Workshop, blueprint: Blueprint, part: Part, **_: bool) -> None:
        asked.add((blueprint, part))

    monkeypatch.setattr(Workshop, "find", find)
    raw = {"data": {"dataset": "diabetes"}, "budget": {"trials": 60, "epochs": 1, "finalists": 1, "seeds": 2}}
    store, _ = run_study(StudySpec.model_validate(raw).resolved("regression", 442), tmp_path)
    store.close()
    made: set[tuple[Blueprint, Part]] = set()
    monkeypatch.setattr(warm, "build", lambda blueprint, part, folder: made.add((blueprint, part)))
    assert warm.warm(["diabetes"], tmp_path) == 2
    assert made == asked


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    done = subprocess.run([sys.executable, "-m", "workers.warm", "dibetes"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no built-in data set 'dibetes'; allowed: " in done.stderr
    assert "diabetes" in done.stderr
