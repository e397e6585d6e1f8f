"""Every named space proposes settings that train, and with everything searched at once too."""

from __future__ import annotations

from typing import Any

import pytest

from service.search import Search, recipe
from service.spec import StudySpec
from service.spec.space import PRESETS, SPACE_SETTINGS
from tests.unit.stack.runs import data, protocol, runner
from workers.stack.run import Run
from workers.stack.stack import StackKey

# But for settings of other families and of regressions only.
EVERYTHING = {
    name: setting.searched.model_dump()
    for name, setting in SPACE_SETTINGS.items()
    if name not in ("normalization_groups", "batch_size", "lr")
    and setting.task in (None, "classification")
    and (setting.when is None or setting.when.parent != "family" or "mlp" in setting.when.values)
    and (setting.when is None or setting.when.parent not in ("lr_schedule", "init", "optimizer", "fine_tune"))
}


def spaces() -> dict[str, dict[str, Any]]:
    return {**{name: {"preset": name} for name in PRESETS}, "everything": EVERYTHING}


@pytest.mark.parametrize("name", [name for name in spaces() if name not in ("images", "sequences")])
def test_what_a_space_proposes_trains(name: str) -> None:
    parts = {"data": {"dataset": "wine"}, "model": {"width": 8, "depth": 2}, "space": spaces()[name], "sampler": "random"}
    spec = StudySpec.model_validate(parts).resolved("classification")
    on, how = data(), protocol(epochs=2)
    keys: dict[StackKey, list[Run]] = {}
    for index, (params, _) in enumerate(Search(spec, seed=3).propose(12)):
        setting = recipe(spec, params)
        keys.setdefault(StackKey.of(setting, on.inputs, on.outputs), []).append(Run(index, setting, ((0, index),), how))
    for runs in keys.values():
        stack = runner(runs[0].recipe, on)
        stack.add(runs)
        for _ in range(2):
            stack.epoch()
        assert {run.ending for run in runs} == {"epochs"}
