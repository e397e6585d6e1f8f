"""What a study was made of is written once, on both databases."""

from __future__ import annotations

import pytest

from service.errors import NotFound
from service.store import Store
from service.store.provenance import REPLAY_OF, Provenance
from tests.contract.conftest import a_spec


def test_the_first_to_write_it_down_is_believed(store: Store) -> None:
    study_id = store.studies.submit(a_spec())
    assert store.provenance.get(study_id) == Provenance(None, None)
    store.provenance.note(study_id, {"data_hash": "a"})
    store.provenance.note(study_id, {"data_hash": "b"})
    assert store.provenance.get(study_id).made_of == {"data_hash": "a"}
    with pytest.raises(NotFound):
        store.provenance.note(99, {})


def test_a_replay_says_of_what_from_its_first_moment(store: Store) -> None:
    first = store.studies.submit(a_spec())
    again = store.studies.submit(a_spec(), attributes={REPLAY_OF: first})
    assert store.provenance.get(again) == Provenance(first, None)
    attributes = store.optuna_storage().get_study_user_attrs(again)
    assert attributes[REPLAY_OF] == first
