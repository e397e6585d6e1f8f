"""Commands on tokens: `token create`, `list` and `revoke` on the database itself, `login` and `logout` for a client."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from typing import get_args

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.client.connection import HttpClient, Refused, Unreachable
from service.client.credentials import keep_token, kept_token
from service.settings import Settings
from service.store import open_store
from service.store.actors import NOBODY, AuditEntry
from service.store.records import TokenRecord, TokenScope


def create(settings: Settings, console: Console, owner: str, scope: str, name: str, days: float | None) -> None:
    """Make a token and print it, once.

    Raises:
        typer.BadParameter: There is no such scope.
    """
    known: tuple[TokenScope, ...] = get_args(TokenScope)
    chosen = next((each for each in known if each == scope), None)
    if chosen is None:
        raise typer.BadParameter(f"{scope!r} is not one of {', '.join(known)}", param_hint="--scope")
    settings.home.mkdir(parents=True, exist_ok=True)
    with closing(open_store(settings.database_url, settings.connections, create=True)) as store:
        record, secret = store.tokens.create(owner=owner, scope=chosen, name=name, days=days)
        store.audit.write(AuditEntry(NOBODY, "POST", "regsearch token create", f"tokens/{record.id}", 201))
    until = f"until {record.expires_at:%Y-%m-%d}" if record.expires_at else "until it is revoked"
    about = f"Token {record.id} of {owner}, scope {chosen}, valid {until}. It is shown this once:"
    Console(stderr=True, markup=False, emoji=False).print(about, highlight=False)
    console.print(secret, highlight=False, soft_wrap=True)


def show(settings: Settings, console: Console) -> None:
    """All tokens."""
    table = Table("id", "name", "owner", "scope", "state", "last used")
    with closing(open_store(settings.database_url, settings.connections)) as store:
        for record in store.tokens.list():
            used = f"{record.used_at:%Y-%m-%d %H:%M}" if record.used_at else "never"
            table.add_row(str(record.id), Text(record.name), Text(record.owner), record.scope, _state(record), used)
    console.print(table)


def revoke(settings: Settings, console: Console, token_id: int) -> None:
    """End a token.

    Raises:
        NotFound: There is no such token.
    """
    with closing(open_store(settings.database_url, settings.connections)) as store:
        record = store.tokens.revoke(token_id)
        store.audit.write(AuditEntry(NOBODY, "DELETE", "regsearch token revoke", f"tokens/{record.id}", 200))
    console.print(f"token {record.id} of {record.owner} is revoked", highlight=False)


def login(console: Console, url: str, token: str) -> None:
    """Keep a token for a service that knows it.

    Raises:
        Refused, Unreachable: It does not.
    """
    with closing(HttpClient(url, token=token)) as client:
        own = client.get("/v1/token")
    path = keep_token(client.url, token)
    console.print(f"Signed in at {client.url} as {own['owner']}, scope {own['scope']}; kept in {path}", highlight=False)


def logout(console: Console, url: str) -> None:
    """Forget the token that is kept for a service, and end it there, if a sign-in has made it and the service answers."""
    token = kept_token(url)
    if token is None:
        console.print(f"No token of {url} is kept here.", highlight=False)
        return
    try:
        with closing(HttpClient(url, token=token)) as client:
            found = f"and token {client.delete('/v1/token')['id']} is revoked"
    except Refused as refused:
        ended = refused.status == HTTPStatus.UNAUTHORIZED
        found = "and was not valid any more" if ended else f"but stays valid: {refused}"
    except Unreachable as error:
        found = f"but stays valid until it expires: {error}"
    path = keep_token(url, None)
    console.print(f"The token of {url} is forgotten in {path}, {found}", highlight=False, soft_wrap=True)


def _state(record: TokenRecord) -> str:
    if record.revoked_at is not None:
        return f"revoked {record.revoked_at:%Y-%m-%d}"
    if record.expires_at is None:
        return "valid"
    ended = record.expires_at < datetime.now(UTC)
    return f"{'expired' if ended else 'valid until'} {record.expires_at:%Y-%m-%d}"
