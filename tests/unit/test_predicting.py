"""`regsearch predict` reads numbers and texts of an archive, and runs nothing of it; its card shows names as they are."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from tests.unit.archives import ABOUT, a_fold, people, untrained
from workers.archive import build_archive
from workers.data import DataSource, load_table


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workers.predicting", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def archive_of(path: Path, name: str = "people") -> bytes:
    table = load_table(DataSource("classification", path=people(path), target="class"))
    about = {**ABOUT, "classes": list(table.labels), "study": {"id": 7, "name": name}}
    return build_archive(untrained(a_fold(table), 3), about)


def with_files(archive: bytes, **files: str) -> bytes:
    """The archive with other content in some of its files."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(out, "w") as after:
        for name in before.namelist():
            after.writestr(name, files.get(name.replace(".", "_").replace("/", "_"), before.read(name)))
    return out.getvalue()


def test_nothing_of_an_archive_is_run(tmp_path: Path) -> None:
    rows, model, trace = tmp_path / "rows.csv", tmp_path / "model.zip", tmp_path / "trace"
    evil = f"open({str(trace)!r}, 'w')\n"
    names = ("loader_py", "plain_loader_py", "plain___init___py", "plain_network_py")
    model.write_bytes(with_files(archive_of(rows), **dict.fromkeys(names, evil)))
    done = run(model, rows, "--out", tmp_path / "out.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert not trace.exists()
    assert set(pd.read_csv(tmp_path / "out.csv")["prediction"]) <= {"yes", "no", "perhaps"}


def test_what_training_never_saw_is_a_warning_and_what_is_lacking_an_error(tmp_path: Path) -> None:
    rows, model = tmp_path / "rows.csv", tmp_path / "model.zip"
    model.write_bytes(archive_of(rows))
    frame = pd.read_csv(rows, dtype=str, keep_default_na=False)
    frame.loc[:2, "job"] = "smith\x1b[31m"
    frame.loc[4, "age"] = "41 yrs"
    frame.to_csv(rows, index=False)
    done = run(model, rows)
    assert done.returncode == 0
    assert "warning: column 'age': 1 value is no numbers, such as '41 yrs', taken as missing" in done.stderr
    assert "warning: column 'job': 3 values are unknown to training" in done.stderr
    assert "\x1b" not in done.stderr
    assert len(done.stdout.splitlines()) == 201
    frame.drop(columns="job").to_csv(rows, index=False)
    assert "there is no column 'job'" in run(model, rows).stderr


@pytest.mark.costly
def test_other_files_are_a_sentence(tmp_path: Path) -> None:
    rows, model = tmp_path / "rows.csv", tmp_path / "model.zip"
    content = archive_of(rows)
    broken = [b"", b"PK\x03\x04", content[: len(content) // 2], with_files(content, recipe_json="{}")]
    broken += [with_files(content, recipe_json="[1]"), with_files(content, weights_safetensors="nothing")]
    for each in broken:
        model.write_bytes(each)
        done = run(model, rows)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_card_shows_names_as_they_are(tmp_path: Path) -> None:
    name = "<script>alert(1)</script> | *[x](http://evil)*\n# no heading"
    archive = archive_of(tmp_path / "rows.csv", name)
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        card = files.read("README.md").decode()
        assert json.loads(files.read("recipe.json"))["study"]["name"] == name
    first = card.splitlines()[0]
    assert first.startswith("# \\<script\\>alert(1)\\</script\\> \\| \\*\\[x\\](http://evil)\\* \\# no heading: a ")
