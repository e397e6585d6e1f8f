"""The archive's documents are typed without loss: what is written is what was fitted, and nothing else is taken for it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.result.archive import ArchiveDocument, preprocessing_of
from tests.unit.archives import ABOUT, a_fold, people, shaped, untrained
from workers.archive import build_archive
from workers.data import DataSource, PrepareOptions, load_table


@pytest.mark.parametrize("layout", ["table", "image", "sequence"])
def test_documents_hold_what_was_fitted(layout: Any, tmp_path: Path) -> None:
    if layout == "table":
        table = load_table(DataSource("classification", path=people(tmp_path / "rows.csv"), target="class"))
        options, family = PrepareOptions(scaling="quantile", flag_missing=True), "mlp"
    else:
        path = shaped(tmp_path / "rows.npz", layout)
        table = load_table(DataSource("classification", path=path, format="npz", layout=layout))
        options, family = PrepareOptions(), {"image": "cnn", "sequence": "sequence"}[layout]
    fold = a_fold(table, options)
    model = untrained(fold, 3, family)
    archive = build_archive(model, {**ABOUT, "classes": list(table.labels)})
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        about, fitted = (json.loads(files.read(name)) for name in ("recipe.json", "preprocessing.json"))
    assert fitted == json.loads(json.dumps(fold.preprocessor))
    assert about["model"] == model.shape.to_json()
    assert about["recipe"] == model.recipe.said()
    assert ArchiveDocument.model_validate(about).to_json() == about
    assert preprocessing_of(fitted).to_json() == fitted


@pytest.mark.parametrize("change", [{"kind": "graph"}, {"version": 2}, {"numbers": None}])
def test_another_document_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    table = load_table(DataSource("classification", path=people(tmp_path / "rows.csv"), target="class"))
    with pytest.raises(ValidationError):
        preprocessing_of({**a_fold(table).preprocessor, **change})
