"""Trained models: objects that a transaction names, or that go as strays; ONNX models; what earlier versions have left."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from service.errors import Conflict, LeaseLost, NotFound, NotReady, NotYet
from service.leftovers import GRACE_SECONDS, Leftovers
from service.objects.local import LocalObjects
from service.store import Store
from service.store import tables as t
from service.store.records import Lease
from service.trained import TrainedModels
from tests.clock import Clock
from tests.contract.conftest import a_spec
from tests.contract.test_concurrency import together
from tests.contract.test_trials import complete, expire, proposals, started
from tests.trained import keep_onnx, replace

SECONDS = 60.0
ENDED = -1.0
"""Seconds that are over as soon as they begin."""


def with_archive(store: Store, models: TrainedModels, content: bytes) -> int:
    """A study with an archive."""
    study_id = store.studies.submit(a_spec())
    replace(store, models, study_id, content)
    return study_id


def read(models: TrainedModels, study_id: int) -> bytes:
    with models.archive(study_id) as path:
        return path.read_bytes()


def read_onnx(models: TrainedModels, study_id: int) -> bytes:
    with models.onnx(study_id) as path:
        return path.read_bytes()


def claimed(store: Store, seconds: float = SECONDS) -> int | None:
    found = store.archives.claim_onnx(seconds)
    return None if found is None else found.study_id


def files(home: Path) -> list[bytes]:
    """What is in the store of objects."""
    return sorted(path.read_bytes() for path in (home / "models").glob("*"))


def finalizing(store: Store) -> Lease:
    """The lease of a worker that finalizes a study."""
    lease = started(store, budget={"trials": 1})
    store.trials.record(lease, [], [complete(trial) for trial in store.trials.ask(lease, proposals(1))])
    return finalized_by(store, "first")


def finalized_by(store: Store, worker: str) -> Lease:
    lease = store.leases.claim(worker, 60)
    assert lease is not None
    assert lease.phase == "finalize"
    return lease


class Sweeping:
    """The leftovers of a home, looked for at any time."""

    def __init__(self, store: Store, home: Path) -> None:
        self._clock = Clock()
        self._leftovers = Leftovers(LocalObjects(home), store, self._clock.monotonic)

    def after(self, seconds: float) -> None:
        self._clock.sleep(seconds)
        self._leftovers.appear()
        self._leftovers.turn()


@pytest.fixture
def sweeping(store: Store, tmp_path: Path) -> Sweeping:
    return Sweeping(store, tmp_path)


def test_a_worker_without_its_lease_leaves_the_study_as_the_other_one_has_ended_it(
    store: Store, models: TrainedModels, sweeping: Sweeping, tmp_path: Path
) -> None:
    late = finalizing(store)
    theirs = models.keep(BytesIO(b"of the late one"), "zip")
    expire(store, late)
    second = finalized_by(store, "second")
    with pytest.raises(LeaseLost):
        store.studies.finish(late, {"verdict": "bad"}, theirs)
    store.studies.finish(second, {"verdict": "good"}, models.keep(BytesIO(b"of the second"), "zip"))
    store.studies.finish(late, {"verdict": "bad"}, theirs)  # which looks like a repeat by now
    assert (store.studies.get(late.study_id).result or {})["verdict"] == "good"
    assert read(models, late.study_id) == b"of the second"
    sweeping.after(0.0)
    sweeping.after(GRACE_SECONDS - 1.0)
    assert files(tmp_path) == [b"of the late one", b"of the second"]
    sweeping.after(2.0)
    assert files(tmp_path) == [b"of the second"]
    assert store.archives.strays(10) == {}
    sweeping.after(2 * GRACE_SECONDS)
    assert read(models, late.study_id) == b"of the second"


def test_an_archive_that_went_as_a_stray_ends_no_study_and_is_written_again(
    store: Store, models: TrainedModels, sweeping: Sweeping
) -> None:
    lease = finalizing(store)
    slow = models.keep(BytesIO(b"slow"), "zip")
    sweeping.after(0.0)
    sweeping.after(GRACE_SECONDS + 1.0)
    with pytest.raises(NotReady, match="has to be written again"):
        store.studies.finish(lease, {"verdict": "good"}, slow)
    assert store.studies.get(lease.study_id).state == "finalizing"
    store.studies.finish(lease, {"verdict": "good"}, models.keep(BytesIO(b"slow"), "zip"))
    assert read(models, lease.study_id) == b"slow"


def test_what_is_replaced_or_deleted_goes_at_once(
    store: Store, models: TrainedModels, sweeping: Sweeping, tmp_path: Path
) -> None:
    study_id = with_archive(store, models, b"one")
    keep_onnx(store, models, study_id, b"its ONNX model")
    replace(store, models, study_id, b"two")
    assert len(files(tmp_path)) == 3
    sweeping.after(0.0)
    assert files(tmp_path) == [b"two"]
    store.studies.cancel(study_id)
    store.studies.delete(study_id)
    sweeping.after(2.0)
    assert files(tmp_path) == []
    assert store.archives.strays(10) == {}


def test_a_database_deletes_nothing_that_another_one_may_have_written(
    store: Store, sweeping: Sweeping, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{'0' * 64}-01234567.zip").write_bytes(b"of another database with the same home")
    for _ in range(3):
        sweeping.after(2 * GRACE_SECONDS)
    assert files(tmp_path) == [b"of another database with the same home"]


def test_an_object_that_is_gone_or_damaged_is_told(store: Store, models: TrainedModels, tmp_path: Path) -> None:
    study_id = with_archive(store, models, b"whole and sound")
    (path,) = (tmp_path / "models").iterdir()
    path.write_bytes(b"whole and s")
    with pytest.raises(
        Conflict, match=rf"the archive of study {study_id} is not what was stored: models/\w+-\w+.zip is torn"
    ):
        read(models, study_id)
    path.unlink()
    with pytest.raises(Conflict, match=rf"the archive of study {study_id} can't be read: models/.* is not in this home"):
        read(models, study_id)


def test_an_onnx_model_is_kept_beside_its_archive(store: Store, models: TrainedModels, tmp_path: Path) -> None:
    study_id = with_archive(store, models, b"one")
    with pytest.raises(NotYet, match=f"study {study_id} is not there yet"):
        read_onnx(models, study_id)
    found = store.archives.claim_onnx(SECONDS)
    assert found == store.archives.get(study_id)
    onnx = models.keep(BytesIO(b"\0model"), "onnx")
    store.archives.keep_onnx(study_id, found.sha256, onnx)
    store.archives.keep_onnx(study_id, found.sha256, onnx)  # as after a lost connection
    assert read_onnx(models, study_id) == b"\0model"
    assert store.archives.get(study_id) == found
    assert claimed(store, ENDED) is None
    assert store.archives.strays(10) == {}
    keep_onnx(store, models, study_id, b"\0model of another worker")
    assert read_onnx(models, study_id) == b"\0model of another worker"
    assert store.archives.strays(10) == {str(onnx.name): True}


def test_an_archive_that_can_t_be_exported_is_not_tried_again(store: Store, models: TrainedModels) -> None:
    study_id = with_archive(store, models, b"one")
    keep_onnx(store, models, study_id, None, "too strange")
    assert claimed(store, ENDED) is None
    with pytest.raises(Conflict, match=f"study {study_id} has no ONNX model: too strange") as refused:
        read_onnx(models, study_id)
    assert not isinstance(refused.value, NotYet)


def test_another_archive_has_no_onnx_model_yet(store: Store, models: TrainedModels) -> None:
    study_id = with_archive(store, models, b"one")
    sha256 = store.archives.get(study_id).sha256
    keep_onnx(store, models, study_id, b"model")
    replace(store, models, study_id, b"two")
    with pytest.raises(NotYet):
        read_onnx(models, study_id)
    keep_onnx(store, models, study_id, b"model", sha256=sha256)  # that of the one before comes too late
    assert claimed(store) == study_id
    assert read(models, study_id) == b"two"
    replace(store, models, study_id, None)
    keep_onnx(store, models, study_id, b"model", sha256=sha256)
    with pytest.raises(NotFound, match="model of study"):
        read_onnx(models, study_id)


def test_the_latest_comes_first_and_a_dead_worker_s_again(store: Store, models: TrainedModels) -> None:
    studies = [with_archive(store, models, content) for content in (b"one", b"two")]
    time.sleep(0.01)  # the clock of SQLite counts milliseconds
    replace(store, models, studies[0], b"three")
    assert claimed(store) == studies[0]
    assert claimed(store) == studies[1]
    assert claimed(store) is None
    assert claimed(store, ENDED) == studies[0]


def test_nobody_is_given_what_another_one_has(store: Store, models: TrainedModels) -> None:
    studies = [with_archive(store, models, bytes([place])) for place in range(4)]
    rounds = [together(*(partial(claimed, store) for _ in range(4))) for _ in range(4)]
    assert sorted(each for given in rounds for each in given if each is not None) == studies


def left_in_database(store: Store, content: bytes, onnx: bytes | None = None) -> int:
    """A study with a model as migration 0022 finds it."""
    study_id = store.studies.submit(a_spec())
    known = {"study_id": study_id, "sha256": hashlib.sha256(content).hexdigest(), "created_at": 1.0}
    sizes = {"size": len(content), "onnx_size": None if onnx is None else len(onnx)}
    with store.database.engine.begin() as connection:
        connection.execute(t.model_archives.insert().values(**known, **sizes))
        connection.execute(t.model_blobs.insert().values(**known, content=content, onnx=onnx))
    return study_id


def test_what_earlier_versions_left_is_read_and_moved_by_many_at_once(
    store: Store, models: TrainedModels, sweeping: Sweeping, tmp_path: Path
) -> None:
    first, second = left_in_database(store, b"one", b"\0onnx"), left_in_database(store, b"two")
    third, gone = left_in_database(store, b"three"), left_in_database(store, b"gone")
    assert store.usage.of("default").model_bytes == 3 + 5 + 3 + 5 + 4
    assert read_onnx(models, first) == b"\0onnx"
    assert files(tmp_path) == [b"\0onnx", b"one"]
    together(*(partial(models.move, second) for _ in range(4)))
    assert read(models, second) == b"two"
    replace(store, models, gone, None)
    while models.move():
        pass
    assert [read(models, study_id) for study_id in (first, third)] == [b"one", b"three"]
    assert store.archives.left() is None
    sweeping.after(0.0)
    assert files(tmp_path) == [b"\0onnx", b"one", b"three", b"two"]
    with pytest.raises(NotYet):
        read_onnx(models, second)
