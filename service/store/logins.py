"""Sign-ins of devices without a browser: begun by the device, confirmed by a person, ended by the device. Thread-safe.

The device has a code of 256 random bits, the person a short one, of 34; both are kept as digests, for some minutes, and are
good for one token. The short one alone is worth nothing: it lets whoever is signed in give a token of theirs away, to a
device that only has the other one. Reference: RFC 8628.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, case, delete, func, insert, select, update

from service.errors import TooMany
from service.store import tables as t
from service.store.engine import Database
from service.store.records import LoginRecord, TokenRecord, TokenScope
from service.store.rows import inserted_key, moment
from service.store.tokens import OF_DEVICE, Tokens, digest_of, is_valid, new_secret

LIFETIME_SECONDS = 600.0
PAUSE_SECONDS = 5.0
"""Between two polls of a device; longer by as much each time that it does not wait."""
_PUNCTUAL_SECONDS = 1.0
"""By which a poll may come too soon: networks are not even."""
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""Of short codes: no vowels, so that they spell nothing (RFC 8628, 6.1)."""
_MOST_OPEN = 1000
Answer = Literal["authorization_pending", "slow_down", "access_denied", "expired_token", "invalid_grant", "granted"]
"""To a poll, in the words of RFC 8628."""


class Logins:
    """Operations on sign-ins of devices."""

    def __init__(self, database: Database, tokens: Tokens) -> None:
        self._database = database
        self._tokens = tokens

    def begin(self, *, device: str, address: str, scope: TokenScope | None) -> tuple[str, str]:
        """Begin a sign-in for a token of at most a ``scope``; returns the device's code and the person's, to be shown once.

        Raises:
            TooMany: Very many have been begun and not ended.
        """
        device_code = secrets.token_urlsafe(32)
        letters = "".join(secrets.choice(_LETTERS) for _ in range(8))
        now = self._database.now
        values = {
            **{"device_digest": digest_of(device_code), "user_digest": digest_of(letters), "device": device},
            **{"address": address, "scope": scope, "state": "open", "pause": PAUSE_SECONDS},
        }

        def work(connection: Connection) -> bool:
            # Expired ones stay for a while, so that their devices are told.
            connection.execute(delete(t.logins).where(t.logins.c.expires_at < now - LIFETIME_SECONDS))
            if connection.execute(select(func.count()).select_from(t.logins)).scalar_one() >= _MOST_OPEN:
                return False
            connection.execute(insert(t.logins).values(**values, created_at=now, expires_at=now + LIFETIME_SECONDS))
            return True

        if not self._database.write_once(work):
            raise TooMany("too many sign-ins have been begun and not ended", int(LIFETIME_SECONDS))
        return device_code, f"{letters[:4]}-{letters[4:]}"

    def open(self, user_code: str) -> LoginRecord | None:
        """The sign-in that waits for a person with this code; None if none does."""
        query = select(t.logins).where(self._waits(user_code))
        row = self._database.read(lambda connection: connection.execute(query).mappings().first())
        if row is None:
            return None
        begun = moment(row["created_at"])
        assert begun is not None, "never null"
        return LoginRecord(row["device"], row["address"], row["scope"], begun)

    def confirm(
        self, user_code: str, by: TokenRecord, *, scope: TokenScope, seconds: float, until: datetime | None = None
    ) -> bool:
        """Promise a device a token of the owner of the token ``by``, for ``seconds`` and not beyond ``until``.

        Returns False if no device waits for it.
        """
        last = self._database.now + seconds
        if until is not None:
            last = case((last > until.timestamp(), until.timestamp()), else_=last)
        return self._decide(user_code, {"state": "confirmed", "token_id": by.id, "scope": scope, "token_expires_at": last})

    def refuse(self, user_code: str) -> bool:
        """Refuse a device its token; False if none waits for it."""
        return self._decide(user_code, {"state": "refused"})

    def poll(self, device_code: str) -> tuple[Answer, TokenRecord | None, str]:
        """What has become of a device's sign-in; of a confirmed one, once, the token and its secret."""
        secret = new_secret()
        mine = t.logins.c.device_digest == digest_of(device_code)
        columns = (t.logins, self._database.now.label("now"))

        def work(connection: Connection) -> tuple[Answer, int]:
            query = select(*columns).where(mine).with_for_update(of=t.logins)
            row = connection.execute(query).mappings().first()
            if row is None:
                return "invalid_grant", 0
            if row["expires_at"] <= row["now"]:
                return "expired_token", 0
            if row["state"] == "open":
                return self._too_soon(connection, row), 0
            connection.execute(delete(t.logins).where(t.logins.c.id == row["id"]))
            made = self._grant(connection, row, secret) if row["state"] == "confirmed" else 0
            return ("granted", made) if made else ("access_denied", 0)

        answer, token_id = self._database.write_once(work)
        if answer != "granted":
            return answer, None, ""
        return answer, self._tokens.get(token_id), secret

    def _too_soon(self, connection: Connection, row: RowMapping) -> Answer:
        """Note a poll of a sign-in that nobody has decided yet."""
        early = row["polled_at"] is not None and row["now"] - row["polled_at"] < row["pause"] - _PUNCTUAL_SECONDS
        pause = row["pause"] + (PAUSE_SECONDS if early else 0.0)
        change = update(t.logins).where(t.logins.c.id == row["id"]).values(polled_at=row["now"], pause=pause)
        connection.execute(change)
        return "slow_down" if early else "authorization_pending"

    def _grant(self, connection: Connection, row: RowMapping, secret: str) -> int:
        """Make the token, if that of whoever has confirmed it is still valid; returns its id, else 0."""
        valid = (t.tokens.c.id == row["token_id"]) & is_valid(self._database.now)
        owner = connection.execute(select(t.tokens.c.owner).where(valid)).scalar_one_or_none()
        if owner is None:
            return 0
        values = {
            **{"owner": owner, "scope": row["scope"], "name": f"{OF_DEVICE}{row['device']}", "digest": digest_of(secret)},
            **{"created_at": self._database.now, "expires_at": row["token_expires_at"]},
        }
        return inserted_key(connection.execute(insert(t.tokens).values(values)))

    def _decide(self, user_code: str, values: Mapping[str, Any]) -> bool:
        change = update(t.logins).where(self._waits(user_code)).values(**values)
        return bool(self._database.write_once(lambda connection: connection.execute(change).rowcount))

    def _waits(self, user_code: str) -> ColumnElement[bool]:
        letters = "".join(letter for letter in user_code.upper() if letter in _LETTERS)
        in_time = t.logins.c.expires_at > self._database.now
        return (t.logins.c.user_digest == digest_of(letters)) & (t.logins.c.state == "open") & in_time
