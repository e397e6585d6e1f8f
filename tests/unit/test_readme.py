"""The README and the reference: short, current, with commands and an example that exist."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from ruamel.yaml import YAML

from service.cli.commands import app
from service.spec import SETTINGS, StudySpec
from service.spec.reference import TESTS, render

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 250


def test_the_reference_is_current() -> None:
    found = (ROOT / "service/spec/REFERENCE.md").read_text()
    assert found == render(), "run: python -m service.spec.reference > service/spec/REFERENCE.md"


def test_every_group_of_settings_has_tests_that_exist() -> None:
    assert set(TESTS) == {setting.group for setting in SETTINGS.values()}
    for tests in TESTS.values():
        for test in tests:
            assert (Path(__file__).parent / "stack" / test).is_file(), test


def test_its_example_is_a_study() -> None:
    example, *_ = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    StudySpec.model_validate(YAML(typ="safe", pure=True).load(example))


def test_its_commands_and_their_options_exist() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    fenced = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.split("#")[0] for block in fenced for line in block.splitlines()]
    lines += re.findall(r"`(regsearch [^`]*)`", README)
    used = [part for line in lines if "regsearch " in line for part in line.split("regsearch ")[1].split(" | ")]
    assert len(used) > 15
    for command, *words in (part.split(" -- ")[0].split() for part in used):  # another command's words follow
        assert command in group.commands, command
        known = {option for parameter in group.commands[command].params for option in parameter.opts}
        assert {word.strip("[]") for word in words if word.strip("[]").startswith("--")} <= known, command
