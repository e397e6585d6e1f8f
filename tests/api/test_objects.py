"""One store of objects for all: a real S3 server, a folder, copies within a limit that several processes share."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.numpy import save

from service import leftovers as leftovers_module
from service.api.app import create_app
from service.errors import InvalidInput, TrialError
from service.leftovers import Leftovers
from service.objects import Objects, ObjectsUnavailable, OtherContent, open_objects, states_of
from service.objects import remote as remote_objects
from service.objects.cache import Cache
from service.objects.local import LocalObjects
from service.settings import InvalidSettings, Settings, load_settings
from service.spec import StudySpec
from service.store import Store
from service.trained import TrainedModels
from tests.api.test_routes import finish
from tests.clock import Clock
from tests.contract.test_archives import left_in_database
from tests.contract.test_trials import proposals
from tests.results import result
from tests.servers import S3, SECRET
from tests.trained import keep_onnx
from workers.searching.checkpoints import Checkpoints
from workers.study_data import StudyData

pytestmark = pytest.mark.usefixtures("credentials")

CSV = b"age,job,class\n" + b"".join(b"%d,%s,%d\n" % (20 + n % 60, b"ab"[n % 2 :][:1], n % 3 == 0) for n in range(300))
ID = hashlib.sha256(CSV).hexdigest()[:16]


@pytest.fixture(scope="module", autouse=True)
def bucket(s3: S3) -> str:
    s3.fill("shared", {})
    return "shared"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of an API; a prefix of its own for each test."""
    return host(tmp_path, "api")


def host(tmp_path: Path, name: str) -> Settings:
    """The settings of another machine, which has neither files nor copies in common."""
    return Settings(
        home=tmp_path / name / "home",
        cache=tmp_path / name / "cache",
        db_url=f"sqlite:///{tmp_path / 'api/home/regsearch.db'}",
        objects=f"s3://shared/{tmp_path.name}",
        weights_roots=(tmp_path / "weights",) if name == "api" else (),
    )


@pytest.fixture(autouse=True)
def _parents(settings: Settings) -> None:
    settings.home.parent.mkdir(parents=True)


@pytest.fixture(params=["local", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, settings: Settings) -> Objects:
    return LocalObjects(tmp_path / "folder") if request.param == "local" else open_objects(settings)


def kept(settings: Settings) -> list[str]:
    """The keys below the prefix of a test."""
    client = boto3.client("s3")
    prefix = f"{(settings.objects or '').removeprefix('s3://shared/')}/"
    found = client.list_objects_v2(Bucket="shared", Prefix=prefix).get("Contents", [])
    client.close()
    return sorted(each["Key"].removeprefix(prefix) for each in found)


def test_every_store_does_the_same(objects: Objects) -> None:
    assert list(objects.names("datasets")) == []
    with objects.arriving("datasets") as directory:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{ID}.csv"
        path.write_bytes(CSV)
        assert objects.put(f"datasets/{ID}.csv", path, new=True)
        assert not objects.put(f"datasets/{ID}.csv", path, new=False)
    with objects.reading(f"datasets/{ID}.csv", ID) as found:
        assert found.read_bytes() == CSV
    with pytest.raises(OtherContent), objects.reading(f"datasets/{ID}.csv", "0" * 16):
        pass
    for state in (b"first", b"second"):
        objects.write("checkpoints/trial-1.pt", lambda file, state=state: file.write(state))  # type: ignore[misc]
        with objects.reading("checkpoints/trial-1.pt") as found:
            assert found.read_bytes() == state
    assert list(objects.names("checkpoints")) == ["checkpoints/trial-1.pt"]
    for _ in range(2):
        objects.delete("checkpoints/trial-1.pt")
    with pytest.raises(FileNotFoundError), objects.reading("checkpoints/trial-1.pt"):
        pass
    assert "written" in objects.check()


def test_a_failed_write_leaves_what_was_there(objects: Objects) -> None:
    objects.write("checkpoints/trial-1.pt", lambda file: file.write(b"whole"))

    def broken(file: object) -> None:
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        objects.write("checkpoints/trial-1.pt", broken)
    with objects.reading("checkpoints/trial-1.pt") as found:
        assert found.read_bytes() == b"whole"


def test_a_data_set_goes_from_the_api_to_a_worker_with_nothing_in_common(
    client: TestClient, settings: Settings, store: Store, tmp_path: Path
) -> None:
    made = client.post("/v1/datasets", files={"file": ("people.csv", CSV)}).json()
    assert kept(settings) == [f"datasets/{made['id']}.csv"]
    assert not settings.datasets_dir.exists()
    assert client.post("/v1/datasets", files={"file": ("bad.csv", b"a\n1\n")}).status_code == 422
    assert kept(settings) == [f"datasets/{made['id']}.csv"]
    body = {"data": {"dataset": made["id"], "target": "class", "missing": ["?"]}, "model": {"widths": [4]}}
    study = client.post("/v1/studies", json=body)
    assert study.status_code == 201, study.text
    record = store.studies.get(study.json()["id"])
    spec = StudySpec.model_validate(record.spec)
    elsewhere = host(tmp_path, "worker")
    prepared = StudyData(store, elsewhere, torch.device("cpu")).of(record, spec)
    assert len(prepared.table.features) == 300
    # A copy that is damaged is fetched anew; an object that is torn, or gone, is told.
    (copy,) = (elsewhere.cache / "objects/copies/datasets").iterdir()
    copy.write_bytes(CSV[:-5])
    StudyData(store, elsewhere, torch.device("cpu")).of(record, spec)
    assert copy.read_bytes() == CSV
    copy.unlink()
    third = boto3.client("s3")
    key = f"{tmp_path.name}/datasets/{made['id']}.csv"
    third.put_object(Bucket="shared", Key=key, Body=CSV[:-5])
    with pytest.raises(InvalidInput, match="is not what was uploaded"):
        StudyData(store, elsewhere, torch.device("cpu")).of(record, spec)
    assert not copy.exists()
    third.delete_object(Bucket="shared", Key=key)
    third.close()
    with pytest.raises(InvalidInput, match="can't be read: it is not in the object store"):
        StudyData(store, elsewhere, torch.device("cpu")).of(record, spec)
    client.post("/v1/datasets", files={"file": ("people.csv", CSV)})
    client.post(f"/v1/studies/{study.json()['id']}/cancel")
    assert client.delete(f"/v1/datasets/{made['id']}").status_code == 204
    assert kept(settings) == []


def test_weights_travel_by_their_hash_and_go_with_the_last_study(
    client: TestClient, settings: Settings, store: Store, tmp_path: Path
) -> None:
    content = save({"layer.weight": np.ones((2, 2), np.float32)})
    path = tmp_path / "weights" / "net.safetensors"
    path.parent.mkdir()
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    schema: dict[str, Any] = {"name": "mynets.small:Small", "args": {}, "error": None}
    worker = store.workers.register(name="w", host="h", pid=1, device="cpu")
    store.modules.publish(worker, [schema])
    body = {"data": {"dataset": "wine"}, "model": {"module": "mynets.small:Small", "weights": str(path)}}
    made = client.post("/v1/studies", json=body)
    assert made.status_code == 201, made.text
    assert kept(settings) == [f"weights/{sha256}.safetensors"]
    spec = StudySpec.model_validate(store.studies.get(made.json()["id"]).spec)
    data = StudyData(store, host(tmp_path, "worker"), torch.device("cpu"))
    found = data._weights(spec)
    assert found is not None
    assert list(found) == ["layer.weight"]
    client.post(f"/v1/studies/{made.json()['id']}/cancel")
    assert client.delete(f"/v1/studies/{made.json()['id']}").status_code == 204
    clock = Clock()
    leftovers = Leftovers(open_objects(settings), store, clock.monotonic)
    for minutes in (0, 14, 16):  # one that has just arrived may be for a study that is about to be submitted
        assert kept(settings) == [f"weights/{sha256}.safetensors"]
        clock.sleep(60 * minutes)
        leftovers.appear()
        leftovers.turn()
    assert kept(settings) == []
    with pytest.raises(TrialError, match="not in the object store; submit the study again"):
        StudyData(store, host(tmp_path, "third"), torch.device("cpu"))._weights(spec)


def test_a_model_goes_from_a_worker_to_the_api_and_is_told_when_it_is_gone(
    client: TestClient, settings: Settings, store: Store, tmp_path: Path
) -> None:
    elsewhere = TrainedModels(store, open_objects(host(tmp_path, "worker")))
    client.post("/v1/studies", json={"data": {"dataset": "wine"}, "budget": {"trials": 3}})
    finish(store, result(), b"PK an archive" * 1000, models=elsewhere)
    keep_onnx(store, elsewhere, 1, b"an ONNX model")
    archive, _ = sorted(kept(settings), key=lambda name: name.endswith(".onnx"))
    assert archive.startswith(f"models/{hashlib.sha256(b'PK an archive' * 1000).hexdigest()}-")
    assert not any((each / "models").exists() for each in (settings.home, host(tmp_path, "worker").home))
    sent = client.get("/v1/studies/1/model")
    assert (sent.content, sent.headers["content-length"]) == (b"PK an archive" * 1000, "13000")
    assert client.get("/v1/studies/1/model?format=onnx").content == b"an ONNX model"
    # The copy of the API is checked each time, and fetched anew; the object itself is the last word.
    copies = settings.cache / "objects/copies"
    (copies / archive).write_bytes(b"PK another")
    assert client.get("/v1/studies/1/model").content == sent.content
    server = boto3.client("s3")
    server.put_object(Bucket="shared", Key=f"{tmp_path.name}/{archive}", Body=b"PK another")
    (copies / archive).unlink()
    for _ in range(2):
        torn = client.get("/v1/studies/1/model")
        assert torn.status_code == 409
        assert torn.json()["detail"] == (
            f"the archive of study 1 is not what was stored: {archive} is torn, or has been changed"
        )
    server.delete_object(Bucket="shared", Key=f"{tmp_path.name}/{archive}")
    server.close()
    for path in ("model", "archive"):
        gone = client.get(f"/v1/studies/1/{path}")
        assert gone.status_code == 409
        assert gone.json()["detail"] == f"the archive of study 1 can't be read: {archive} is not in the object store"
    (refused,) = client.post(
        "/v1/studies", json={"data": {"dataset": "wine"}, "model": {"start_from": 1}, "budget": {"trials": 3}}
    ).json()["errors"]
    assert (refused["field"], refused["message"]) == ("model.start_from", gone.json()["detail"])
    assert client.delete("/v1/studies/1").status_code == 204
    give_up = time.monotonic() + 60
    while kept(settings) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert kept(settings) == []


def test_models_of_an_earlier_version_are_moved_in_the_background(
    client: TestClient, settings: Settings, store: Store
) -> None:
    ids = [left_in_database(store, b"PK an archive" * size, b"onnx") for size in (1, 2, 3)]
    with TestClient(create_app(store, settings), base_url="http://localhost"):  # an upgraded API that starts
        give_up = time.monotonic() + 60
        while store.archives.left() is not None and time.monotonic() < give_up:
            time.sleep(0.1)
    twice = store.archives.strays(100)  # as both APIs have moved them
    assert len({*kept(settings)} - {*twice}) == 6
    for study_id, size in zip(ids, (1, 2, 3), strict=True):
        with TrainedModels(store, open_objects(settings)).archive(study_id) as path:
            assert path.read_bytes() == b"PK an archive" * size


def test_what_is_left_goes_in_the_background_and_a_part_at_a_time(
    client: TestClient, settings: Settings, store: Store, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.post("/v1/studies", json={"data": {"dataset": "wine"}})
    lease = store.leases.claim("worker", 600)
    assert lease is not None
    (trial,) = store.trials.ask(lease, proposals(1))
    names = [states_of(number) for number in (trial.id, 1_000_001, 1_000_002, 1_000_003)]
    for name in names:
        objects.write(name, lambda file: file.write(b"state"))
    monkeypatch.setattr(leftovers_module, "MOST", 2)
    clock = Clock()
    leftovers = Leftovers(objects, store, clock.monotonic)
    left = []
    for _ in range(3):
        leftovers.turn()
        leftovers.turn()  # it is not time yet
        left.append(len(objects.names("checkpoints")))
        clock.sleep(1)
    assert left == [2, 1, 1]
    assert objects.names("checkpoints") == [names[0]]
    client.post(f"/v1/studies/{made.json()['id']}/cancel")
    Checkpoints(open_objects(settings)).save(trial.id, {})
    assert client.delete(f"/v1/studies/{made.json()['id']}").status_code == 204
    give_up = time.monotonic() + 60
    while kept(settings) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert kept(settings) == []


def test_a_checkpoint_of_one_home_is_found_by_another_and_a_damaged_one_is_none(tmp_path: Path, settings: Settings) -> None:
    Checkpoints(open_objects(settings)).save(7, {"weights": torch.arange(1000.0)})
    other = Checkpoints(open_objects(host(tmp_path, "worker")))
    found = other.load(7)
    assert found is not None
    assert torch.equal(found["weights"], torch.arange(1000.0))
    client = boto3.client("s3")
    key = f"{tmp_path.name}/checkpoints/trial-7.pt"
    whole = bytearray(client.get_object(Bucket="shared", Key=key)["Body"].read())
    for damaged in (whole[: len(whole) // 2], whole[:1500] + bytes([whole[1500] ^ 1]) + whole[1501:]):
        client.put_object(Bucket="shared", Key=key, Body=bytes(damaged))
        assert other.load(7) is None
    client.close()
    other.sweep(lambda ids: set())
    assert kept(settings) == []


def test_copies_stay_within_their_limit_unless_they_are_held(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 250)
    fetched: list[str] = []

    def get(name: str, stack: ExitStack) -> Path:
        def fetch(path: Path) -> None:
            fetched.append(name)
            path.write_bytes(b"x" * 100)

        return stack.enter_context(cache.holding(f"datasets/{name}", fetch))

    def there() -> list[str]:
        return sorted(path.name for path in (tmp_path / "datasets").iterdir())

    with ExitStack() as held:
        paths = [get(name, held) for name in "abc"]
        cache.trim()
        assert there() == ["a", "b", "c"]
        held.close()  # the last one first, while the others are held
        assert there() == ["a", "b"]
    for moment, path in enumerate(reversed(paths[:2])):
        os.utime(path, (moment, moment))
    with ExitStack() as again:
        get("d", again)
    assert (there(), fetched) == (["a", "d"], [*"abcd"])


READ_OFTEN = """
import sys
from pathlib import Path
from typing import Any
from service.objects.cache import Cache
cache = Cache(Path(sys.argv[1]), 2_000)
for turn in range(100):
    name = turn * int(sys.argv[2]) % 7
    content = bytes([name]) * 500
    with cache.holding(f"datasets/{name}", lambda path: path.write_bytes(content)) as path:
        assert path.read_bytes() == path.read_bytes() == content
"""


def test_processes_share_copies_without_taking_them_from_each_other(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", READ_OFTEN, str(tmp_path), number] for number in "123"]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    Cache(tmp_path, 2_000).trim()
    left = list((tmp_path / "datasets").iterdir())
    assert 0 < len(left) <= 4
    assert all(path.suffix != ".part" for path in left)


def test_uploads_in_parts_that_nobody_finishes_are_swept(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("s3")
    for key in (f"{tmp_path.name}/datasets/a.csv", "of-others/a.csv"):
        client.create_multipart_upload(Bucket="shared", Key=key)
    objects = open_objects(settings)

    def open_uploads() -> list[str]:
        return sorted(each["Key"] for each in client.list_multipart_uploads(Bucket="shared").get("Uploads", []))

    with monkeypatch.context() as patched:  # the server gives all of them one date, of long ago
        patched.setattr(remote_objects, "ABANDONED_SECONDS", 1e12)
        objects.sweep()
    assert f"{tmp_path.name}/datasets/a.csv" in open_uploads()
    objects.sweep()
    assert open_uploads() == ["of-others/a.csv"]
    client.close()


def test_a_store_that_is_not_there_or_refuses_is_told_without_secrets(
    settings: Settings, tmp_path: Path, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = settings.model_copy(update={"objects": "s3://absent/x"})
    with pytest.raises(ObjectsUnavailable, match=r"s3://absent/x can't be used: FileNotFoundError") as told:
        open_objects(absent).check()
    assert SECRET not in str(told.value)
    assert Checkpoints(open_objects(absent)).save(1, {"a": 1}) is False
    monkeypatch.setattr(remote_objects, "_connect", _nobody)
    answer = client.post("/v1/datasets", files={"file": ("people.csv", CSV)})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert SECRET not in answer.text
    assert client.get("/v1/datasets").json()[0]["built_in"]


def _nobody(address: str) -> None:
    raise PermissionError(SECRET)


@pytest.mark.parametrize(
    "address", ["ftp://host/x", "https://host/x", "bucket", "s3://", "s3://user:secret@host/x", "file:///"]
)
def test_an_address_that_is_no_store_is_refused_at_the_start(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGSEARCH_OBJECTS", address)
    load_settings.cache_clear()
    try:
        with pytest.raises(InvalidSettings, match="REGSEARCH_OBJECTS") as told:
            load_settings()
    finally:
        load_settings.cache_clear()
    assert "secret" not in str(told.value)


def test_addresses_and_nothing_are_stores() -> None:
    given = {"": None, "s3://b/p/": "s3://b/p", "az://box/p": "abfs://box/p", "file:///srv/x/": "file:///srv/x"}
    for text, address in given.items():
        assert Settings(objects=text).objects == address
    assert isinstance(open_objects(Settings(objects="file:///srv/x/")), LocalObjects)
