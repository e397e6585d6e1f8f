"""Tokens of people and programs: made once, shown once, kept as digests. Thread-safe.

A token is 256 random bits, so its SHA-256 can't be guessed from it or from others, and needs neither salt nor stretching
(OWASP, "Password Storage Cheat Sheet", is for what people choose). It is found by its digest, which tells an attacker
who measures times nothing of the token.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, RowMapping, insert, or_, select, update

from service.errors import NotFound
from service.store import tables as t
from service.store.engine import Database, upsert
from service.store.records import TokenRecord, TokenScope
from service.store.rows import inserted_key, moment

PREFIX = "rs_"
OF_ISSUER = "OpenID Connect"
OF_DEVICE = "login of "
"""Names of tokens that sign-ins have made, the second followed by that of a device; an admin names the others."""
"""Name of tokens of whom the issuer has named."""
_USE_SECONDS = 60.0
"""The last use is written at most so often."""


class Tokens:
    """Operations on tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, *, owner: str, scope: TokenScope, name: str = "", days: float | None = None) -> tuple[TokenRecord, str]:
        """Make a token that is valid for ``days``, or until it is revoked; returns it, which nobody can read again."""
        secret = new_secret()
        now = self._database.now
        values = {"owner": owner, "scope": scope, "name": name, "digest": digest_of(secret), "created_at": now}
        if days is not None:
            values["expires_at"] = now + days * 86_400.0
        made = self._database.write_once(
            lambda connection: inserted_key(connection.execute(insert(t.tokens).values(values)))
        )
        return self.get(made), secret

    def adopt(self, secret: str, *, owner: str, scope: TokenScope, expires_at: float) -> None:
        """Keep somebody else's token as one of ours until it expires (seconds since 1970); again, that changes nothing."""
        values = {"owner": owner, "scope": scope, "name": OF_ISSUER, "digest": digest_of(secret), "expires_at": expires_at}

        def work(connection: Connection) -> None:
            made = upsert(connection, t.tokens).values({**values, "created_at": self._database.now})
            connection.execute(made.on_conflict_do_nothing(index_elements=["digest"]))

        self._database.write(work)

    def list(self) -> Sequence[TokenRecord]:
        """All tokens, revoked and expired ones included, newest first."""
        query = select(t.tokens).order_by(t.tokens.c.id.desc())
        return self._database.read(lambda connection: [_record(row) for row in connection.execute(query).mappings()])

    def revoke(self, token_id: int) -> TokenRecord:
        """End a token; again, that changes nothing.

        Raises:
            NotFound: There is no such token.
        """
        mine = (t.tokens.c.id == token_id) & t.tokens.c.revoked_at.is_(None)
        change = update(t.tokens).where(mine).values(revoked_at=self._database.now)
        self._database.write(lambda connection: connection.execute(change))
        return self.get(token_id)

    def valid(self, token_ids: Sequence[int]) -> set[int]:
        """Those of some tokens that have neither been revoked nor expired."""
        query = select(t.tokens.c.id).where(t.tokens.c.id.in_(token_ids), self._is_valid)
        return set(self._database.read(lambda connection: connection.execute(query).scalars().all()))

    @property
    def _is_valid(self) -> ColumnElement[bool]:
        return is_valid(self._database.now)

    def find(self, secret: str) -> TokenRecord | None:
        """The valid token of a secret; None for an unknown, expired or revoked one. Notes its use."""
        now = self._database.now
        stale = or_(t.tokens.c.used_at.is_(None), t.tokens.c.used_at < now - _USE_SECONDS)
        query = select(t.tokens, stale.label("stale")).where(t.tokens.c.digest == digest_of(secret), self._is_valid)
        row = self._database.read(lambda connection: connection.execute(query).mappings().first())
        if row is None or not secrets.compare_digest(row["digest"], digest_of(secret)):
            return None
        if row["stale"]:
            used = update(t.tokens).where(t.tokens.c.id == row["id"]).values(used_at=now)
            self._database.write(lambda connection: connection.execute(used))
        return _record(row)

    def get(self, token_id: int) -> TokenRecord:
        """A token.

        Raises:
            NotFound: There is no such token.
        """

        def work(connection: Connection) -> TokenRecord:
            row = connection.execute(select(t.tokens).where(t.tokens.c.id == token_id)).mappings().first()
            if row is None:
                raise NotFound("token", token_id)
            return _record(row)

        return self._database.read(work)


def new_secret() -> str:
    """A token that nobody can guess."""
    return f"{PREFIX}{secrets.token_urlsafe(32)}"


def is_valid(now: ColumnElement[float]) -> ColumnElement[bool]:
    """Whether a token has neither been revoked nor expired, in SQL."""
    return t.tokens.c.revoked_at.is_(None) & or_(t.tokens.c.expires_at.is_(None), t.tokens.c.expires_at > now)


def digest_of(secret: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _record(row: RowMapping) -> TokenRecord:
    times = {name: moment(row[name]) for name in ("created_at", "expires_at", "used_at", "revoked_at")}
    created = times.pop("created_at")
    assert created is not None, "never null"
    return TokenRecord(row["id"], row["name"], row["owner"], row["scope"], created, **times)
