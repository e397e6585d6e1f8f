"""Tables by the words of a spec have an entry for each word: a new one cannot be taken for another."""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import Path
from typing import get_args

import pytest

from service.report.pdf import _COLOURS
from service.report.scene import Role
from service.spec import PINBALL, RANKING_METRICS, SETTINGS, Space
from service.spec.groups.lr_schedule import SCHEDULES
from service.spec.groups.normalization import NORMALIZATIONS
from service.spec.groups.optimizer import OPTIMIZERS
from service.spec.metrics import Metric, Task
from service.spec.model import _SHAPES, ACTIVATIONS, LAYOUTS, MODULE
from service.spec.parts import Scaling
from service.spec.recipe import GROWTH
from service.spec.space import PRESETS
from workers.data.fitting import SCALERS
from workers.plain import cnn, layers, network, readings, scaling, schedules, sequence, update
from workers.plain.loader import DECODED
from workers.scoring.metrics import AREAS, NAMES
from workers.stack.gradient import EXAMPLE_LOSSES
from workers.stack.optimizers import RULES
from workers.stack.techniques import TECHNIQUES

FAMILIES = SETTINGS["family"].words
OURS = tuple(family for family in FAMILIES if family != MODULE)
TABLES: list[tuple[str, Collection[str], Collection[str]]] = [
    ("shapes", _SHAPES, OURS),
    ("growth of layers", GROWTH, FAMILIES),
    ("layouts", LAYOUTS, OURS),
    ("normalizations", NORMALIZATIONS, FAMILIES),
    ("presets", PRESETS, get_args(Space.model_fields["preset"].annotation)),
    ("areas under curves", AREAS, RANKING_METRICS),
    ("metrics by task", NAMES, get_args(Task)),
    (
        "metrics computed",
        {*AREAS, PINBALL, *(name for names in NAMES.values() for name in names)},
        {"loss", *get_args(Metric)},
    ),
    ("colours in print", _COLOURS, get_args(Role)),
    ("networks", network.FAMILIES, FAMILIES),
    ("normalizations of features", layers.FEATURE_NORMS, NORMALIZATIONS["mlp"]),
    ("normalizations of channels", layers.CHANNEL_NORMS, NORMALIZATIONS["cnn"]),
    ("normalizations of steps", sequence.STEP_NORMS, NORMALIZATIONS["sequence"]),
    ("activations", layers.ACTIVATIONS, ACTIVATIONS),
    ("pooling of series", sequence.POOLING, SETTINGS["pooling"].words),
    ("pooling of images", cnn.POOLING, {"mean", "max"}),
    ("downsampling", cnn.HALVING, SETTINGS["downsampling"].words),
    ("cells", sequence.CELLS, SETTINGS["cell"].words),
    ("initializations", {network.OWN, *(init for init, _ in network.INITIALIZATIONS)}, SETTINGS["init"].words),
    ("their distributions", {kind for _, kind in network.INITIALIZATIONS}, SETTINGS["init_distribution"].words),
    ("schedules", schedules.FACTORS, SCHEDULES),
    ("update rules", RULES, OPTIMIZERS),
    ("torch's update rules", update.OPTIMIZERS, OPTIMIZERS),
    ("scalings", SCALERS, get_args(Scaling)),
    ("transforms", scaling.TRANSFORMS, get_args(Scaling)),
    ("losses", EXAMPLE_LOSSES, get_args(Task)),
    ("readings understood", readings.UNDERSTOOD, readings.MADE),
    ("decoded outputs", DECODED, get_args(Task)),
]


@pytest.mark.parametrize(("table", "words"), [case[1:] for case in TABLES], ids=[case[0] for case in TABLES])
def test_a_table_has_an_entry_for_every_word(table: Collection[str], words: Collection[str]) -> None:
    assert set(table) == set(words)


def test_a_technique_is_a_setting_that_a_lane_has_of_its_own() -> None:
    names = [technique.name for technique in TECHNIQUES]
    assert len(names) == len(set(names))
    own = {name for name in names if name not in ("frozen", "quantile")}  # of fine-tuning, and of what is predicted
    assert own <= {name for name, each in SETTINGS.items() if each.scope == "lane"}
    regularizing = {name for name, each in SETTINGS.items() if each.regularizer and each.scope == "lane"}
    assert regularizing - set(names) == {"dropout", "input_dropout", "head_dropout"}, "which are layers of the networks"


def test_a_network_reads_settings_that_change_its_graph() -> None:
    """All of them that its family has; width and depth come as widths."""
    for family in OURS:
        own = {
            name
            for name, each in SETTINGS.items()
            if each.scope == "stack" and each.group in ("model", "normalization")
            if each.when is None or each.when.parent != "family" or family in each.when.values
        }
        own -= {"family", "width", "depth", *({"heads"} if family != "sequence" else set())}
        assert set(network.settings_of(family)) == {"widths", *own}
    named = {"module", "dropout_after", "dropout_layers", "freeze"}  # no settings, but words of the spec
    assert set(network.settings_of(MODULE)) == {*named, "layer_lr_decay", "replace_normalization"}


def test_plain_training_reads_every_setting() -> None:
    """A setting that the stack knows and the plain loop does not would make a program that trains something else."""
    read = {
        node.value
        for path in Path(str(network.__file__)).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    read |= {name for family in FAMILIES for name in network.settings_of(family)}
    assert {name for name in SETTINGS if name not in read} == {"width", "depth"}, "which come as widths"
