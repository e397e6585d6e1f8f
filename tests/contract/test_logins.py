"""Sign-ins of devices on both databases: one token for a code, however many ask at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from service.store import Store
from service.store.logins import LIFETIME_SECONDS


def test_of_many_polls_one_gets_the_token(store: Store) -> None:
    by, _ = store.tokens.create(owner="ann", scope="submit", days=1)
    device_code, user_code = store.logins.begin(device="cluster", address="10.0.0.7", scope="read")
    assert store.logins.poll(device_code) == ("authorization_pending", None, "")
    assert store.logins.poll(device_code)[0] == "slow_down"
    waiting = store.logins.open(f" {user_code.lower()} ")
    assert waiting is not None
    assert (waiting.device, waiting.address, waiting.scope) == ("cluster", "10.0.0.7", "read")
    confirmed = [store.logins.confirm(user_code, by, scope="read", seconds=1e6, until=by.expires_at) for _ in range(2)]
    assert confirmed == [True, False]
    assert store.logins.open(user_code) is None
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: store.logins.poll(device_code), range(8))]
    ((_, made, secret),) = [answer for answer in answers if answer[0] == "granted"]
    assert {answer[0] for answer in answers} == {"granted", "invalid_grant"}
    assert made == store.tokens.find(secret)
    assert made is not None
    assert (made.owner, made.scope, made.name, made.expires_at) == ("ann", "read", "login of cluster", by.expires_at)


def test_what_is_refused_or_old_is_gone(store: Store) -> None:
    refused, code = store.logins.begin(device="x", address="", scope=None)
    assert [store.logins.refuse(code) for _ in range(2)] == [True, False]
    assert [store.logins.poll(refused)[0] for _ in range(2)] == ["access_denied", "invalid_grant"]
    old, code = store.logins.begin(device="x", address="", scope=None)
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE rs_logins SET expires_at = expires_at - {LIFETIME_SECONDS}")
    assert (store.logins.open(code), store.logins.refuse(code), store.logins.poll(old)[0]) == (None, False, "expired_token")
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE rs_logins SET expires_at = expires_at - {LIFETIME_SECONDS} - 1")
    store.logins.begin(device="y", address="", scope=None)
    assert store.logins.poll(old)[0] == "invalid_grant"
