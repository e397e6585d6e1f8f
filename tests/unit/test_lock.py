"""The locks of the images: all packages, at versions that are allowed, with hashes, and nothing of where they are from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("service/lock.txt", "workers/lock.txt")


def entries(lock: str) -> dict[str, str]:
    """The lines of a lock, each with all its hashes, by package; one that has several versions counts with the last."""
    text = re.sub(r"^#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE).replace(" \\\n", "")
    return {canonicalize_name(re.split(r"[\[=]", line)[0]): line for line in text.splitlines()}


@pytest.mark.parametrize("lock", LOCKS)
def test_it_has_all_that_the_image_installs_at_versions_that_are_allowed(lock: str) -> None:
    locked = {name: Requirement(line.split(" --hash")[0]) for name, line in entries(lock).items()}
    extras = re.findall(r"--extra (\w+)", (ROOT / lock).read_text())
    wanted = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    wanted += [each for extra in extras for each in PROJECT["project"]["optional-dependencies"][extra]]
    assert ("worker" in extras) == ("torch" in locked) == lock.startswith("workers")
    for requirement in map(Requirement, wanted):
        (version,) = locked[canonicalize_name(requirement.name)].specifier
        assert version.operator == "=="
        assert requirement.specifier.contains(version.version), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_it_has_hashes_and_names_no_place(lock: str) -> None:
    for line in entries(lock).values():
        wanted = r"[\w.-]+(\[[\w,]+\])?==[\w.]+( ; [\w.<>=!'() ]+)?(    --hash=sha256:[0-9a-f]{64})+"
        assert re.fullmatch(wanted, line), line.split(" --hash")[0]
    dockerfile = (ROOT / lock).with_name("Dockerfile").read_text()
    assert f"pip install --no-cache-dir --require-hashes -r {lock}\n" in dockerfile
    assert "--no-deps --no-build-isolation ." in dockerfile, "nothing else is downloaded"


def test_the_images_have_the_same_versions() -> None:
    service, workers = (entries(lock) for lock in LOCKS)
    assert all(service[name] == workers[name] for name in service.keys() & workers.keys())
