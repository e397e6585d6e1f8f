"""All documents: links and anchors lead somewhere, files that are named exist, every room is described."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.spec.reference import anchor

ROOT = Path(__file__).parents[2]
FOLDERS = ("service", "workers", "tests", ".github")
FOUND = (*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")))
DOCUMENTS = sorted(path.relative_to(ROOT) for path in FOUND)


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^( *)```.*?^ *```$", "", (ROOT / path).read_text(), flags=re.DOTALL | re.MULTILINE)


def links(path: Path) -> Iterator[tuple[str, str]]:
    """(file, anchor) of every link to a file of ours, either may be empty."""
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?<!`)`[^`\n]+`(?![`\]])", "", prose(path))):
        if not target.startswith(("https://", "http://")):
            file, _, name = target.partition("#")
            yield file, name


def anchors(path: Path) -> set[str]:
    """The addresses of a document's headings."""
    return {anchor(title.strip()) for title in re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_and_anchors_lead_somewhere(document: Path) -> None:
    for file, name in links(document):
        target = (ROOT / document.parent / file).resolve() if file else ROOT / document
        assert target.exists(), f"{document}: {file}"
        assert not name or name in anchors(target.relative_to(ROOT)), f"{document}: {file}#{name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_that_are_named_exist(document: Path) -> None:
    named = set(re.findall(r"`((?:service|workers|tests|\.github)/[\w./-]+)`", prose(document)))
    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("layer", ["service", "workers"])
def test_every_room_is_described(layer: str) -> None:
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / layer).glob("*/__init__.py")}
    described = re.findall(rf"^\| `({layer}/[\w/]+)` \|", prose(Path(layer, "README.md")), flags=re.MULTILINE)
    assert rooms <= set(described)
