"""service/lock.txt: all packages of the images, at versions that are allowed, and nothing of where they are from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LINES = [line for line in (ROOT / "service/lock.txt").read_text().splitlines() if not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILES = [ROOT / layer / "Dockerfile" for layer in ("service", "workers")]


def test_it_has_all_that_the_images_install_at_versions_that_are_allowed() -> None:
    locked = {canonicalize_name(each.name): each for each in map(Requirement, LINES)}
    wanted = [*PROJECT["dependencies"]]
    for file in DOCKERFILES:
        (extras,) = re.findall(r"-c service/lock\.txt '\.\[([\w,]+)\]'", file.read_text())
        wanted += [each for extra in extras.split(",") for each in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, wanted):
        (version,) = locked[canonicalize_name(requirement.name)].specifier
        assert version.operator == "=="
        assert requirement.specifier.contains(version.version), requirement


def test_it_names_no_place() -> None:
    for line in LINES:
        assert re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+( ; [\w.<>=!'() ]+)?", line), line
