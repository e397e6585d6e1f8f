"""Images in folders by class, from the upload of a ZIP file to predictions for a folder of new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from service.store import StudyState, open_store
from tests.unit.data.test_formats import archive, cats_and_dogs, image
from tests.unit.test_whole_studies import UntilItEnds
from workers.archive.read import read_archive
from workers.plain.loader import Model
from workers.worker import Worker

SPEC = {
    "space": {"preset": "off", "lr": 0.01},
    "budget": {"trials": 2, "epochs": 6, "finalists": 1, "seeds": 2},
    "deliver": {"seeds": 2},
}


@pytest.mark.parametrize("family", ["cnn", "mlp"])
def test_a_zip_file_of_images_is_searched_and_a_folder_of_new_ones_predicted(tmp_path: Path, family: str) -> None:
    own = Settings(home=tmp_path / "home", cache=tmp_path / "cache")
    own.home.mkdir()
    store = open_store(own.database_url, create=True)
    path = cats_and_dogs(tmp_path / "pets.zip")
    with TestClient(create_app(store, own), base_url="http://localhost") as client:
        answer = client.post("/v1/datasets", files={"file": ("pets.zip", path.read_bytes())})
        assert answer.status_code == 201, answer.text
        data = answer.json()
        assert (data["rows"], data["format"]) == (60, "zip")
        used = {"dataset": data["id"], "image_size": 12}
        spec = SPEC | {"data": used, "model": {"family": family, "width": 8, "depth": 1}}
        study = client.post("/v1/studies", json=spec)
        assert study.status_code == 201, study.text
        assert client.delete(f"/v1/datasets/{data['id']}").status_code == 409, "a study uses it"
        Worker(store, own, "cpu", UntilItEnds(store, study.json()["id"])).run()
        record = store.studies.get(study.json()["id"])
        assert (record.state, record.reason) == (StudyState.FINISHED, None)
        model = Model.of(*read_archive(client.get(f"/v1/studies/{record.id}/model").content))
        assert client.delete(f"/v1/datasets/{data['id']}").status_code == 204
        assert client.get(f"/v1/datasets/{data['id']}").status_code == 404
        assert list(own.datasets_dir.iterdir()) == []
    store.close()
    new = archive(tmp_path / "new.zip", {f"{row}.png": image(row, (30, 20)) for row in range(100, 110)})
    expected = ["dog" if row % 2 == 0 else "cat" for row in range(100, 110)]
    assert list(model.predict(new)) == expected
    assert np.allclose(model.probabilities(new).sum(1), 1.0)
