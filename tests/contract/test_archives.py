"""ONNX models beside archives: claimed by one worker at a time, kept or given up, gone with the archive that they are of."""

from __future__ import annotations

import time
from functools import partial

import pytest

from service.errors import Conflict, NotFound, NotYet
from service.store import Store
from service.store.archives import replace_archive
from tests.contract.conftest import a_spec
from tests.contract.test_concurrency import together

SECONDS = 60.0
ENDED = -1.0
"""Seconds that are over as soon as they begin."""


def with_archive(store: Store, content: bytes) -> int:
    """A study with an archive."""
    study_id = store.studies.submit(a_spec())
    replace(store, study_id, content)
    return study_id


def replace(store: Store, study_id: int, content: bytes) -> None:
    store.database.write(partial(replace_archive, database=store.database, study_id=study_id, content=content))


def claimed(store: Store, seconds: float = SECONDS) -> tuple[int, bytes] | None:
    found = store.archives.claim_onnx(seconds)
    return None if found is None else (found[0], found[1].content)


def test_an_onnx_model_is_kept_beside_its_archive(store: Store) -> None:
    study_id = with_archive(store, b"one")
    with pytest.raises(NotYet, match=f"study {study_id} is not there yet"):
        store.archives.onnx(study_id)
    found = store.archives.claim_onnx(SECONDS)
    assert found == (study_id, store.archives.get(study_id))
    store.archives.keep_onnx(study_id, found[1].sha256, b"\0model")
    store.archives.keep_onnx(study_id, found[1].sha256, b"\0model")  # as after a lost connection
    assert store.archives.onnx(study_id) == b"\0model"
    assert store.archives.get(study_id) == found[1]
    assert claimed(store, ENDED) is None


def test_an_archive_that_can_t_be_exported_is_not_tried_again(store: Store) -> None:
    study_id = with_archive(store, b"one")
    store.archives.keep_onnx(study_id, store.archives.get(study_id).sha256, None, "too strange")
    assert claimed(store, ENDED) is None
    with pytest.raises(Conflict, match=f"study {study_id} has no ONNX model: too strange") as refused:
        store.archives.onnx(study_id)
    assert not isinstance(refused.value, NotYet)


def test_another_archive_has_no_onnx_model_yet(store: Store) -> None:
    study_id = with_archive(store, b"one")
    sha256 = store.archives.get(study_id).sha256
    store.archives.keep_onnx(study_id, sha256, b"model")
    replace(store, study_id, b"two")
    with pytest.raises(NotYet):
        store.archives.onnx(study_id)
    store.archives.keep_onnx(study_id, sha256, b"model")  # that of the one before comes too late
    assert claimed(store) == (study_id, b"two")
    store.database.write(partial(replace_archive, database=store.database, study_id=study_id, content=None))
    store.archives.keep_onnx(study_id, sha256, b"model")
    with pytest.raises(NotFound, match="model of study"):
        store.archives.onnx(study_id)


def test_the_latest_comes_first_and_a_dead_worker_s_again(store: Store) -> None:
    studies = [with_archive(store, content) for content in (b"one", b"two")]
    time.sleep(0.01)  # the clock of SQLite counts milliseconds
    replace(store, studies[0], b"three")
    assert claimed(store) == (studies[0], b"three")
    assert claimed(store) == (studies[1], b"two")
    assert claimed(store) is None
    assert claimed(store, ENDED) == (studies[0], b"three")


def test_nobody_is_given_what_another_one_has(store: Store) -> None:
    studies = [with_archive(store, bytes([place])) for place in range(4)]
    rounds = [together(*(partial(claimed, store) for _ in range(4))) for _ in range(4)]
    found = [each[0] for given in rounds for each in given if each is not None]
    assert sorted(found) == studies
