"""The provenance of a study is written once."""

from __future__ import annotations

import pytest

from service.errors import NotFound
from service.store import Store
from service.store.provenance import REPLAY_OF, Provenance
from tests.contract.conftest import a_spec


def test_the_first_provenance_is_kept(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    assert store.provenance.get(study_id) == Provenance(None, None)
    store.provenance.note(study_id, {"data_hash": "a"})
    store.provenance.note(study_id, {"data_hash": "b"})
    assert store.provenance.get(study_id).made_of == {"data_hash": "a"}
    with pytest.raises(NotFound):
        store.provenance.note(99, {})


def test_a_replay_names_its_origin_from_the_start(store: Store) -> None:
    first = store.studies.submit(a_spec())
    again = store.studies.submit(a_spec(), attributes={REPLAY_OF: first})
    assert store.provenance.get(again) == Provenance(first, None)
    attributes = store.optuna_storage().get_study_user_attrs(again)
    assert attributes[REPLAY_OF] == first
