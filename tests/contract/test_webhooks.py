"""The queues of webhooks: what is taken of each, by one process at a time."""

from __future__ import annotations

from collections import Counter
from functools import partial

from service.store import Store
from tests.contract.test_concurrency import together


def made(store: Store, messages: int) -> int:
    """A webhook with messages that are due."""
    hook, _ = store.webhooks.create(
        owner="ann", secret="whsec_x", url="https://example.org/", description="", events=["*"], everyone=False
    )
    for _ in range(messages):
        store.webhooks.add(hook, "test", {})
    return hook


def test_no_webhook_is_taken_more_of_than_is_asked_for(store: Store) -> None:
    long, short, failing = made(store, 7), made(store, 2), made(store, 3)
    (first,) = store.webhooks.take(1, 0.0, failing=False, each=1, but=[long, short])
    store.webhooks.tell(first, received=False, status=500, error=None, ms=1.0, again_in=0.0)
    take = partial(store.webhooks.take, 10, 60.0)
    found = take(failing=False, each=3)
    assert Counter(each.webhook_id for each in found) == {long: 3, short: 2}
    assert not any(each.failing for each in found)
    assert not take(failing=False, each=3, but=[long])
    assert [each.webhook_id for each in take(failing=False, each=3)] == [long] * 3
    (slow,) = take(failing=True, each=1)
    assert (slow.webhook_id, slow.failing) == (failing, True)
    store.webhooks.tell(slow, received=True, status=200, error=None, ms=1.0, again_in=None)
    assert Counter(each.webhook_id for each in take(failing=False, each=5)) == {long: 1, failing: 2}
    assert [*take(failing=False, each=5), *take(failing=True, each=5)] == []


def test_processes_take_no_message_twice(store: Store) -> None:
    hooks = [made(store, 6) for _ in range(3)]
    take = partial(store.webhooks.take, 5, 60.0, failing=False, each=3)
    found = [each for _ in range(6) for taken in together(*(take for _ in range(4))) for each in taken]
    assert Counter(each.webhook_id for each in found) == dict.fromkeys(hooks, 6)
    assert len({each.id for each in found}) == 18
