"""Records of data sets: the same content is one of all its owners, each of whom has a name and a source for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from service.errors import NotFound
from service.store import Store
from service.store.records import DatasetRecord

RECORD = DatasetRecord(
    "abc", "people", "people.csv", "csv", 10, 3, (2,), ({"name": "a"},), sha256="abc" * 21, source={"file": "people.csv"}
)


def test_an_owner_knows_it_as_they_have_given_it(store: Store) -> None:
    query = {"database": "sales", "query": "SELECT 1"}
    store.datasets.add(RECORD, "ann")
    store.datasets.add(replace(RECORD, name="mine", filename="mine.parquet", source=query), "bob")
    ann, bob = (store.datasets.get("abc", owner) for owner in ("ann", "bob"))
    assert (ann.name, ann.source, ann.owners, ann.sha256) == ("people", {"file": "people.csv"}, ("ann",), "abc" * 21)
    assert (bob.name, bob.source, bob.owners) == ("mine", query, ("bob",))
    assert [store.datasets.list(owner) for owner in ("ann", "bob", "eve")] == [[ann], [bob], []]
    whole = store.datasets.get("abc")
    assert (whole.name, set(whole.owners)) == ("mine", {"ann", "bob"})
    with pytest.raises(NotFound):
        store.datasets.get("abc", "eve")
    store.datasets.delete("abc", "bob")
    assert store.datasets.get("abc") == ann


def test_given_again_it_has_its_latest_name(store: Store) -> None:
    first = store.datasets.add(RECORD, "ann")
    again = store.datasets.add(replace(RECORD, name="others", source={"address": "s3://bucket/people.csv"}), "ann")
    assert (again.name, again.source) == ("others", {"address": "s3://bucket/people.csv"})
    assert again.created_at == first.created_at


def test_data_sets_of_one_name_are_versions(store: Store) -> None:
    for number in range(3):
        store.datasets.add(replace(RECORD, id=f"v{number}"), "ann")
    store.datasets.add(replace(RECORD, id="other", name="other"), "ann")
    store.datasets.add(replace(RECORD, id="bobs"), "bob")
    versions = store.datasets.versions("people", "ann")
    assert [each.id for each in versions] == ["v2", "v1", "v0"]
    assert versions[0].created_at >= versions[2].created_at
    assert store.datasets.versions("nothing", "ann") == []


def test_those_of_earlier_versions_were_files(store: Store) -> None:
    store.datasets.add(RECORD)
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE rs_dataset_owners SET name = NULL, source = NULL"))
        connection.execute(text("UPDATE rs_datasets SET sha256 = NULL"))
    (found,) = store.datasets.list("default")
    assert (found.name, found.source, found.sha256) == ("people", {"file": "people.csv"}, None)
    assert [each.id for each in store.datasets.versions("people", "default")] == ["abc"]
