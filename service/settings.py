"""Operator settings, read from environment variables with the prefix ``REGSEARCH_``; no other module reads them."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from service.addresses import checked_prefix, checked_store
from service.errors import RegsearchError

_SECRET = ("db_url", "db_password", "databases", "data_prefixes", "objects", "oidc_client_secret")
"""Settings that have passwords, or may by mistake."""


Days = Annotated[float | None, Field(gt=0, le=36_500)]


@dataclass(frozen=True)
class Connections:
    """How a process is connected to PostgreSQL: ``kept`` connections, and ``pooler`` if they are to a pooler that lends a
    server's connection for one transaction, so that nothing may be left to a session.
    """

    kept: int = 8
    pooler: bool = False


DIRECT = Connections()


class InvalidSettings(RegsearchError):
    """A setting has a value that it can't have."""


def checked_issuer(text: str) -> str:
    """The URL of an issuer.

    Raises:
        ValueError: It is none, or not of TLS on another machine than this.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be the URL of an issuer, such as https://id.example.org")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must begin with https://")
    return text


class Settings(BaseSettings):
    """Directories, addresses and limits; the defaults are suitable for a laptop."""

    model_config = SettingsConfigDict(env_prefix="REGSEARCH_", frozen=True)

    home: Path = Field(Path(".regsearch"), description="Directory for the embedded database, data sets and checkpoints.")
    objects: Annotated[str, AfterValidator(checked_store)] | None = Field(
        None,
        description="Address of a store for data sets and checkpoints, in place of `home`, such as `s3://bucket/prefix`.",
    )
    objects_cache_mb: float = Field(10_240, gt=0, description="Copies from that store on each machine, in MiB.")
    db_url: str | None = Field(None, description="SQLAlchemy URL of the database; default: an SQLite file in `home`.")
    db_connections: int = Field(
        8, ge=1, description="Connections that a process keeps open to PostgreSQL; it uses twice as many at most."
    )
    db_pooler: bool = Field(
        False, description="Whether `db_url` is that of a pooler that lends connections for one transaction (PgBouncer)."
    )
    db_password: SecretStr | None = Field(None, description="Password of the database, where `db_url` has none.")
    host: str = Field("127.0.0.1", description="Address on which the API listens.")
    auth: Literal["off", "tokens", "unprotected"] = Field(
        "off",
        description="`tokens`: every request needs one, and owners see only what is theirs. `off` is for loopback "
        "addresses; on others the service starts without tokens only if `unprotected` says so.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port on which the API listens.")
    public_url: str = Field("", description="URL under which users reach the API, for links in a separate dashboard.")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="JSON list of host names under which people reach the API, `*.` before all names of a domain."
    )
    data_roots: tuple[Path, ...] = Field((), description="JSON list of directories whose files a study may name by path.")
    weights_roots: tuple[Path, ...] = Field(
        (), description="JSON list of directories whose safetensors files studies of modules may begin with."
    )
    modules: tuple[str, ...] = Field(
        (), description="JSON list of modules of your own, `package.module:Class`, that workers may import and studies name."
    )
    data_prefixes: tuple[Annotated[str, AfterValidator(checked_prefix)], ...] = Field(
        (), description="JSON list of addresses, each with a slash at its end, under which data sets may be fetched."
    )
    databases: dict[Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")], SecretStr] = Field(
        {}, description="JSON object of databases by name, as SQLAlchemy URLs, whose rows may be made a data set."
    )
    max_upload_mb: float = Field(512.0, gt=0, description="Largest accepted data set, in MiB.")
    max_model_mb: float = Field(256.0, gt=0, le=900, description="Largest trained model that is kept, in MiB.")
    max_archive_mb: float = Field(2048.0, gt=0, description="Largest accepted archive of a study, in MiB.")
    cache: Path = Field(
        Path.home() / ".cache" / "regsearch",
        description="Directory for measurements of devices and for programs compiled for them.",
    )
    worker_memory_mb: float | None = Field(
        None, ge=1024, description="Memory of a worker on a CPU, in MiB; default: what the machine or its container has."
    )
    devices_per_trial: int = Field(
        1,
        ge=1,
        le=64,
        description="Devices that a worker has for networks which are trained on several; each is a process of its own.",
    )
    oidc_issuer: Annotated[str, AfterValidator(checked_issuer)] | None = Field(
        None, description="URL of an OpenID Connect issuer by which people sign in, beside tokens."
    )
    oidc_client_id: str | None = Field(None, description="Of this service, as the issuer knows it.")
    oidc_client_secret: SecretStr | None = Field(None, description="Of this service; none for a public client.")
    oidc_scopes: tuple[str, ...] = Field(("openid", "email", "profile"), description="JSON list of what it is asked for.")
    oidc_owner_claim: str = Field("sub", description="Claim with the owner's name; `email` must be verified.")
    oidc_groups_claim: str = Field("groups", description="Claim with the groups of a person.")
    oidc_groups: dict[str, Literal["read", "submit", "worker", "admin"]] = Field(
        {}, description="JSON object of scopes by group, `*` for everybody; of several the strongest."
    )
    oidc_audience: str | None = Field(None, description="Audience of JWTs that API clients may send; none: no JWTs.")
    oidc_login_hours: float = Field(
        168.0, gt=0, le=8760, description="For which a command line is signed in that a person has confirmed in a browser."
    )
    oidc_session_hours: float = Field(12.0, gt=0, le=720, description="After which a browser signs in again.")
    lease_seconds: float = Field(30.0, gt=0, description="A worker that does not renew its lease for this time loses it.")
    turn_seconds: float = Field(30.0, gt=0, description="How long a study keeps a worker while another study has none.")
    quota_running: int | None = Field(None, ge=1, description="Most studies of an owner that have not ended.")
    quota_trials: int | None = Field(None, ge=1, description="Most trials that an owner's open studies may have left.")
    quota_bytes: float | None = Field(None, ge=1, description="Most bytes of data sets and models that an owner may keep.")
    quota_requests: int | None = Field(None, ge=1, description="Most requests of an owner in a minute, for each process.")
    retention_studies: Days = Field(None, description="Studies are deleted so many days after their end.")
    retention_models: Days = Field(None, description="Their trained models are.")
    retention_datasets: Days = Field(None, description="Data sets are deleted so many days after their last use.")
    retention_steps: Days = Field(None, description="Values after single epochs are, so many days after their study's end.")
    retention_events: float = Field(30.0, gt=0, le=36_500, description="Days for which events and deliveries are kept.")
    webhooks_private: bool = Field(
        False, description="Whether webhooks may be sent to addresses of private networks and of this machine."
    )
    dashboard: Literal["readonly", "writable", "off", "only"] = Field(
        "readonly", description="How optuna-dashboard is served; `only`: read-only, by a process that has nothing else."
    )
    traces_url: str = Field(
        "", description="Address of an OTLP receiver over HTTP, to which traces go, such as `http://localhost:4318`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @property
    def database_url(self) -> str:
        """The configured URL, or the embedded SQLite file."""
        if self.db_url is None:
            return f"sqlite:///{(self.home / 'regsearch.db').absolute()}"
        scheme, mark, rest = self.db_url.partition("://")
        user, at, place = rest.partition("@")
        if self.db_password is None or not at or ":" in user:
            return self.db_url
        return f"{scheme}{mark}{user}:{quote(self.db_password.get_secret_value(), safe='')}@{place}"

    @property
    def connections(self) -> Connections:
        """How this process is connected to the database."""
        return Connections(self.db_connections, self.db_pooler)

    @property
    def datasets_dir(self) -> Path:
        """The directory of uploaded data sets."""
        return self.home / "datasets"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        InvalidSettings: One has a value that it can't have; of databases, whose URLs have passwords, the value is not told.
    """
    try:
        return Settings(**_from_files())
    except SettingsError as error:
        field = re.findall(r'field "(\w+)"', str(error))
        raise InvalidSettings(f"REGSEARCH_{'_'.join(field).upper()}: must be JSON") from None
    except ValidationError as error:
        raise InvalidSettings("\n".join(map(_line, error.errors()))) from None


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that give another process, on whichever machine, these settings: those that are set here, and where the
    database and the files are.
    """
    names = {f"REGSEARCH_{name.upper()}" for name in Settings.model_fields}
    here = {name: value for name, value in os.environ.items() if name in names}
    return here | {"REGSEARCH_DB_URL": settings.database_url, "REGSEARCH_HOME": str(settings.home.absolute())}


def _from_files() -> dict[str, Any]:
    """Settings whose value is in a file, which `REGSEARCH_…_FILE` names: how secrets are given to containers.

    Raises:
        InvalidSettings: A file can't be read, is not JSON where that is wanted, or the setting is given twice.
    """
    found: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        variable = f"REGSEARCH_{name.upper()}"
        place = os.environ.get(f"{variable}_FILE")
        if not place:
            continue
        if os.environ.get(variable):
            raise InvalidSettings(f"{variable}: is given twice, also by {variable}_FILE")
        try:
            text = Path(place).read_text(encoding="utf-8").rstrip("\r\n")
            found[name] = json.loads(text) if isinstance(field.default, dict | tuple) else text
        except OSError as error:
            raise InvalidSettings(f"{variable}_FILE: {place} can't be read: {error.strerror}") from None
        except ValueError:
            raise InvalidSettings(f"{variable}_FILE: {place} must be JSON in UTF-8") from None
    return found


def _line(issue: ErrorDetails) -> str:
    name, *rest = map(str, issue["loc"])
    where = ".".join([f"REGSEARCH_{name.upper()}", *(part for part in rest if part != "[key]")])
    given = "" if name in _SECRET else f", not {issue['input']!r}"
    return f"{where}: {issue['msg'].removeprefix('Value error, ')}{given}"
