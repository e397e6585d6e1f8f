"""Addresses of data, and which of them the operator allows: `s3://bucket/people.parquet`, `https://host/people.csv`.

An address is allowed if it begins with one of the operator's prefixes, which end with a slash, letter by letter. That is
sound only if nothing after the prefix leads out of it, however a server or a library reads it. So what could be read in
several ways is refused instead of being normalized: dots and empty parts of a path, encoded slashes, backslashes, user
names, chains of protocols (`simplecache::`, `zip://`), capital letters of a host. Needs only the standard library.
Reference: Orange Tsai, "A New Era of SSRF" (2017), on parsers of URLs that differ.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from service.errors import InvalidInput

PROTOCOLS = ("s3", "gs", "abfs", "https", "http", "file")
"""All that an address may begin with; of abfs and gs fsspec's packages are not among the dependencies."""
WEB = ("https", "http")
SETTING = "REGSEARCH_DATA_PREFIXES"

_MOST = 2000
_PARTS = re.compile(r"([a-z][a-z0-9]*)://([^/?#]*)([^?#]*)(\?[^#]*)?")
_HOST = re.compile(r"[a-z0-9][a-z0-9._-]*(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9.-]+)?")


@dataclass(frozen=True)
class Address:
    """The parts of an address; ``query`` begins with its question mark, and may be a secret (a signature)."""

    protocol: str
    host: str
    path: str
    query: str = ""

    @property
    def plain(self) -> str:
        """Without the query."""
        return f"{self.protocol}://{self.host}{self.path}"

    @property
    def whole(self) -> str:
        """As it was given."""
        return self.plain + self.query

    @property
    def shown(self) -> str:
        """As it is told and kept."""
        return self.plain + ("?…" if self.query else "")

    @property
    def name(self) -> str:
        """The last part of its path; that of the host where it has none."""
        return unquote(self.path.rstrip("/").rpartition("/")[2]) or self.host

    @property
    def is_web(self) -> bool:
        """Whether it is asked for by HTTP."""
        return self.protocol in WEB


def parse_address(text: str, field: str = "address") -> Address:
    """The parts of an address that can be read in one way only.

    Raises:
        InvalidInput: It is none; the message has no user name, password or query.
    """
    found = _PARTS.fullmatch(text) if len(text) <= _MOST else None
    if found is None or "::" in found[3]:
        raise _refusal(field, text, "is not one address", f"PROTOCOL://…, with one of {', '.join(PROTOCOLS)}")
    protocol, host, path, query = found.groups()
    if protocol not in PROTOCOLS:
        raise _refusal(field, text, f"has the protocol {protocol!r}", ", ".join(PROTOCOLS))
    address = Address(protocol, host, path or "/", query or "")
    if problem := _problem(address):
        raise _refusal(field, text, problem[0], problem[1])
    return address


def allowed_address(text: str, prefixes: Sequence[str], field: str = "address") -> Address:
    """The parts of an address that the operator allows.

    Raises:
        InvalidInput: It is none, or not allowed; the message names the setting and the prefixes.
    """
    address = parse_address(text, field)
    if not any(address.plain.startswith(prefix) for prefix in prefixes):
        message = f"begins with no prefix that the operator allows ({SETTING})"
        raise InvalidInput.one(field, message, value=address.shown, allowed=list(prefixes) or "none")
    return address


def checked_prefix(text: str) -> str:
    """A prefix that the operator allows.

    Raises:
        ValueError: It is no address, has no slash at its end, or would allow more than meant.
    """
    try:
        address = parse_address(text, "prefix")
    except InvalidInput as error:
        raise ValueError(f"{error.issues[0].message}; allowed: {error.issues[0].allowed}") from None
    if not text.endswith("/") or address.query or address.plain != text:
        raise ValueError("must end with a slash, as s3://bucket/ or https://host/folder/")
    if address.protocol == "file" and address.path == "/":
        raise ValueError("must name a directory, as file:///srv/data/")
    return text


def checked_store(text: str) -> str | None:
    """The address of a store of objects, without a slash at its end; None for no text at all.

    Raises:
        ValueError: It is no address of a store, or the whole file system.
    """
    if not text:
        return None
    try:
        address = parse_address(text.replace("az://", "abfs://", 1) if text.startswith("az://") else text, "objects")
    except InvalidInput as error:
        raise ValueError(f"{error.issues[0].message}; allowed: {error.issues[0].allowed}") from None
    if address.is_web or (address.protocol == "file" and address.path == "/"):
        raise ValueError("must be s3://bucket/prefix, gs://…, az://… or file:///directory")
    return address.plain.rstrip("/")


def _problem(address: Address) -> tuple[str, str] | None:
    """What is wrong with an address, and what is allowed."""
    host = {"file": re.compile(""), "abfs": _CONTAINER, **dict.fromkeys(WEB, _HOST)}.get(address.protocol, _BUCKET)
    if not host.fullmatch(address.host):
        wanted = "nothing between the second and the third slash" if address.protocol == "file" else "a plain host or bucket"
        return "has a host that can't be read in one way", f"{wanted}, in lower case, without user name and password"
    if any(ord(letter) < 32 or ord(letter) == 127 or letter == "\\" for letter in address.path + address.query):
        return "contains a backslash or a control character", "a path without them"
    if address.query and not address.is_web:
        return "has a query", "a query of https addresses only"
    if any(letter in address.path for letter in "*[]{}") and not address.is_web:
        return "contains a pattern", "a path without * [ ] { }"
    if any(map(_leads_elsewhere, address.path.removesuffix("/").split("/")[1:])):
        return "has a path that can be read in several ways", "a path without empty, encoded or dotted parts"
    return None


def _leads_elsewhere(part: str) -> bool:
    """Whether a part of a path may mean another directory to some server."""
    plain = unquote(part)
    if plain != part and (unquote(plain) != plain or any(letter in "/\\\ufffd" or ord(letter) < 32 for letter in plain)):
        return True
    return "%u" in part or unicodedata.normalize("NFKC", plain).partition(";")[0].strip() in ("", ".", "..")


def _refusal(field: str, text: str, message: str, allowed: str) -> InvalidInput:
    return InvalidInput.one(field, message, value=_shown(text), allowed=allowed)


def _shown(text: str) -> str:
    """Any text without what may be a secret: what stands before an @, and a query."""
    hidden = re.sub(r"^(.*?://)?.*@", r"\1…@", text, flags=re.DOTALL)
    return re.sub(r"[?#].*", "?…", hidden, flags=re.DOTALL)[:_MOST]
