"""The audit log on both databases: latest first, by owner and by what it is about."""

from __future__ import annotations

from service.store import Store
from service.store.actors import NOBODY, Actor, AuditEntry
from tests.contract.conftest import a_spec


def entry(owner: str | None, about: str, status: int = 200) -> AuditEntry:
    by = NOBODY if owner is None else Actor(owner, 3)
    return AuditEntry(by, "POST", "/v1/studies/{study_id}/pause", about, status, "abcdef123456")


def test_entries_are_found_by_owner_and_by_what_they_are_about(store: Store) -> None:
    written = [
        entry("ann", "studies/1"),
        entry("bob", "studies/10"),
        entry("ann", "studies/1/trials/3", 409),
        entry(None, "studies/1_"),
    ]
    for each in written:
        store.audit.write(each)
    found, total = store.audit.page()
    assert ([record.entry for record in found], total) == (written[::-1], 4)
    assert [record.at for record in found] == sorted((record.at for record in found), reverse=True)
    assert [record.entry for record in store.audit.page(owner="ann")[0]] == [written[2], written[0]]
    assert [record.entry for record in store.audit.page(under="studies/1")[0]] == [written[2], written[0]]
    assert store.audit.page(owner="bob", under="studies/1") == ([], 0)
    assert [record.entry for record in store.audit.page(under="studies/1_")[0]] == [written[3]]
    part, total = store.audit.page(offset=1, limit=2)
    assert ([record.entry for record in part], total) == (written[2:0:-1], 4)


def test_it_outlives_what_it_is_about_and_takes_long_paths(store: Store) -> None:
    study = store.studies.submit(a_spec())
    store.audit.write(entry("ann", f"studies/{study}"))
    store.studies.cancel(study)
    store.studies.delete(study)
    store.audit.write(entry("ann", "x" * 5000))
    assert [len(record.entry.object) for record in store.audit.page()[0]] == [200, 9]
