"""Workers make ONNX models of what they have finished, and of archives that earlier versions have left."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from service.api.inspection import Inspections
from service.api.submission import check
from service.errors import Conflict, NotYet
from service.settings import Settings
from service.spec import StudySpec
from service.store import Store, StudyState, open_store
from tests.trained import archive_of, models_of, onnx_of, replace
from tests.unit.archives import ABOUT, a_fold, in_format_1, shaped, untrained
from workers import onnx_models
from workers.archive import build_archive
from workers.archive.read import read_archive
from workers.data import DataSource, load_table
from workers.liveness import Pulse, Stop
from workers.onnx_models import OnnxModels
from workers.plain.loader import Model
from workers.worker import Worker


class UntilExported(Stop):
    """Stops a worker when studies have their ONNX models."""

    def __init__(self, store: Store, studies: Sequence[int]) -> None:
        super().__init__()
        self._store = store
        self._studies = studies

    def __call__(self) -> bool:
        if all(self._exported(study_id) for study_id in self._studies):
            self.asked.set()
        return self.asked.is_set()

    def _exported(self, study_id: int) -> bool:
        if self._store.studies.get(study_id).state not in (StudyState.FINISHED, StudyState.CANCELLED):
            return False
        try:
            self._store.archives.onnx(study_id)
        except NotYet:
            return False
        return True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, cache=tmp_path / "cache", data_roots=(tmp_path,))


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = open_store(settings.database_url, create=True)
    yield opened
    opened.close()


@pytest.fixture
def models(store: Store) -> OnnxModels:
    return OnnxModels(store, models_of(store), Pulse(store, store.workers.register(name="w", host="h", pid=1, device="cpu")))


def left(store: Store, archive: bytes) -> int:
    """A study that is over, with an archive."""
    study_id = store.studies.submit(StudySpec.model_validate({"data": {"dataset": "wine"}}).resolved("classification"))
    store.studies.cancel(study_id)
    replace(store, models_of(store), study_id, archive)
    return study_id


def test_a_worker_exports_what_it_has_finished_and_what_was_left(store: Store, settings: Settings, tmp_path: Path) -> None:
    """The one of series, and one of the first format."""
    wine = load_table(DataSource("classification", name="wine"))
    archive = build_archive(untrained(a_fold(wine), 3, widths=(8,)), {**ABOUT, "classes": list(wine.labels)})
    earlier = left(store, in_format_1(archive))
    path = shaped(tmp_path / "rows.npz", "sequence")
    raw = {
        "data": {"path": str(path)},
        "model": {"family": "sequence", "width": 8, "depth": 1},
        "space": {"preset": "off", "lr": {"low": 1e-3, "high": 1e-1, "log": True}},
        "budget": {"trials": 2, "epochs": 2, "finalists": 1, "seeds": 2},
    }
    spec = check(StudySpec.model_validate(raw), store, settings, Inspections()).spec
    study = store.studies.submit(spec)
    Worker(store, settings, "cpu", UntilExported(store, [earlier, study])).run()

    session = onnxruntime.InferenceSession(onnx_of(store, study), providers=["CPUExecutionProvider"])
    model = Model.of(*read_archive(archive_of(store, study)))
    with np.load(path) as arrays:
        label, found = session.run(None, {"series": arrays["x"], "lengths": arrays["len"]})
    np.testing.assert_allclose(found, model.probabilities(path), rtol=1e-5, atol=1e-5)
    assert list(label) == list(model.predict(path))
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["study"])["id"] == study

    session = onnxruntime.InferenceSession(onnx_of(store, earlier), providers=["CPUExecutionProvider"])
    numbers = wine.features.to_numpy(dtype=np.float64)
    expected = Model.of(*read_archive(archive)).probabilities(wine.features)
    np.testing.assert_allclose(session.run(["probabilities"], {"numbers": numbers})[0], expected, rtol=1e-5, atol=1e-5)


def test_what_can_t_be_exported_is_marked_and_not_tried_again(store: Store, models: OnnxModels) -> None:
    table = load_table(DataSource("classification", name="wine"))
    archive = build_archive(untrained(a_fold(table), 3), {**ABOUT, "classes": list(table.labels)})
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as files, zipfile.ZipFile(changed, "w") as copy:
        for name in files.namelist():
            copy.writestr(name, files.read(name).replace(b'"family": "mlp"', b'"family": "graph"'))
    strange, broken = left(store, changed.getvalue()), left(store, b"PK and nothing more")
    assert [models.make_one() for _ in range(3)] == [True, True, False]
    with pytest.raises(Conflict, match="family 'graph' can't be exported to ONNX"):
        store.archives.onnx(strange)
    with pytest.raises(Conflict, match="BadZipFile: File is not a zip file"):
        store.archives.onnx(broken)


def test_without_the_packages_a_worker_leaves_it_to_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study_id = left(store, b"PK whatever")
    monkeypatch.setattr(onnx_models, "_PACKAGES", ("onnx", "onnx_of_another_planet"))
    assert not OnnxModels(store, models_of(store), Pulse(store, "nobody")).make_one()
    claimed = store.archives.claim_onnx(60.0)
    assert claimed is not None
    assert claimed.study_id == study_id
