"""The README: its reference is current, its commands exist, its example is accepted."""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML

from service.cli.commands import app
from service.spec import SETTINGS, StudySpec
from service.spec.reference import TESTS, updated

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_reference_is_current() -> None:
    assert updated(README) == README, "run: python -m service.spec.reference README.md"


def test_every_group_of_settings_has_tests_that_exist() -> None:
    assert set(TESTS) == {setting.group for setting in SETTINGS.values()}
    for tests in TESTS.values():
        for test in tests:
            assert (Path(__file__).parent / "stack" / test).is_file(), test


def test_its_example_is_a_study() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    StudySpec.model_validate(YAML(typ="safe", pure=True).load(example))


def test_its_commands_exist() -> None:
    known = {command.name or str(getattr(command.callback, "__name__", "")) for command in app.registered_commands}
    block = README.split("## Use it")[1].split("`study.yaml`")[0]
    used = {
        word
        for line in re.findall(r"^regsearch (.*?)#", block, re.MULTILINE)
        for word in re.findall(r"(?:^|\| )(\w+)", line)
    }
    assert used
    assert used <= known


def test_its_pictures_exist() -> None:
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parents[2] / picture).is_file()
