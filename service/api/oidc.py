"""OpenID Connect: who somebody is, as the operator's issuer tells it. Needs Authlib (`regsearch[oidc]`).

Keys come from the issuer's discovery document, and again when a token is signed by an unknown one. Whoever is known becomes
the owner of a token of ours: the browser's cookie then holds one as after signing in with a token, and a JWT of an API
client is kept as one until it expires, so that both are listed, revoked and on record as all tokens are. Reference: OpenID
Connect Core 1.0, RFC 7636 (PKCE), RFC 9700 (OAuth 2.0 security best current practice).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import httpx

from service.api.bodies import storable
from service.errors import NotReady, RegsearchError
from service.settings import InvalidSettings, Settings
from service.store import Store
from service.store.records import TokenRecord, TokenScope

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that need the issuer's private key; with HS256 whoever has the public one could make some."""
_STRONGEST: tuple[TokenScope, ...] = ("admin", "submit", "read", "worker")
_EVERYBODY = "*"
_REFETCH_SECONDS = 30.0
_FRESH_SECONDS = 3600.0
_AWAY_SECONDS = 5.0
_TIMEOUT_SECONDS = 10.0
_LEEWAY_SECONDS = 30
_MOST_OWNER = 100


class NotKnown(RegsearchError):
    """The issuer's answer does not let somebody in; with the reason."""


@dataclass(frozen=True)
class Person:
    """Whom the issuer has named, and what they may do."""

    owner: str
    scope: TokenScope
    expires_at: float


@dataclass(frozen=True)
class Attempt:
    """What a sign-in that has begun must come back with."""

    state: str
    nonce: str
    verifier: str


def check_settings(settings: Settings) -> None:
    """Check that the settings of OpenID Connect go together.

    Raises:
        InvalidSettings: They don't, or its packages are missing.
    """
    if settings.oidc_issuer is None:
        return
    wrong = [
        ("REGSEARCH_AUTH", settings.auth != "tokens", "must be tokens: OpenID Connect signs people in beside them"),
        ("REGSEARCH_OIDC_CLIENT_ID", settings.oidc_client_id is None, "is required with REGSEARCH_OIDC_ISSUER"),
        ("REGSEARCH_PUBLIC_URL", not settings.public_url, "is required: the issuer sends browsers back there"),
        ("REGSEARCH_OIDC_GROUPS", not settings.oidc_groups, 'is required, such as {"staff": "submit"}, or nobody gets in'),
    ]
    told = [f"{name}: {message}" for name, is_wrong, message in wrong if is_wrong]
    if find_spec("authlib") is None or find_spec("joserfc") is None:
        told.append("REGSEARCH_OIDC_ISSUER: needs packages that are not installed: pip install 'regsearch[oidc]'")
    if told:
        raise InvalidSettings("\n".join(told))


class Issuer:
    """The operator's issuer: sends people to it, and reads what it tells of them. Thread-safe.

    Raises (every method):
        NotReady: It does not answer, or not as an issuer does.
        NotKnown: What it tells, or somebody claims that it does, lets nobody in.
    """

    def __init__(self, settings: Settings) -> None:
        assert settings.oidc_issuer is not None
        self._settings = settings
        self._issuer = settings.oidc_issuer
        self._back = f"{settings.public_url.rstrip('/')}/login/callback"
        self._lock = threading.Lock()
        self._document: Mapping[str, Any] | None = None
        self._keys: KeySet | None = None
        self._read_at = -_FRESH_SECONDS
        self._away_until = 0.0

    def authorize(self) -> tuple[str, Attempt]:
        """The address at which somebody signs in."""
        from authlib.common.security import generate_token

        attempt = Attempt(generate_token(43), generate_token(43), generate_token(64))
        with self._client() as client:
            url, _ = client.create_authorization_url(
                self._found("authorization_endpoint"),
                state=attempt.state,
                nonce=attempt.nonce,
                code_verifier=attempt.verifier,
            )
        return url, attempt

    def signed_in(self, code: str, attempt: Attempt) -> Person:
        """Who has come back with a code."""
        from authlib.integrations.base_client import OAuthError

        try:
            with self._client() as client:
                answer = client.fetch_token(
                    self._found("token_endpoint"), code=code, code_verifier=attempt.verifier, grant_type="authorization_code"
                )
        except OAuthError as error:
            raise NotKnown(f"the issuer did not accept the sign-in: {error.error}") from None
        except httpx.HTTPError as error:
            raise self._away(error) from None
        claims = self.claims(str(answer.get("id_token", "")), str(self._settings.oidc_client_id))
        if claims.get("nonce") != attempt.nonce:
            raise NotKnown("the issuer's answer is of another sign-in")
        return self.person(claims)

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """The claims of a JWT of the issuer for an audience, which has not expired."""
        from joserfc import jwt
        from joserfc.errors import ExpiredTokenError, JoseError

        try:
            try:
                found = jwt.decode(token, self._key_set(), algorithms=[*ALGORITHMS])
            except (JoseError, ValueError):  # its keys may have been changed meanwhile
                found = jwt.decode(token, self._key_set(again=True), algorithms=[*ALGORITHMS])
            registry = jwt.JWTClaimsRegistry(
                leeway=_LEEWAY_SECONDS,
                iss={"essential": True, "value": self._issuer},
                aud={"essential": True, "value": audience},
                exp={"essential": True},
                sub={"essential": True},
            )
            registry.validate(found.claims)
        except ExpiredTokenError:
            raise NotKnown("the issuer's token has expired") from None
        except (JoseError, ValueError, TypeError) as error:
            raise NotKnown(f"it is not a token of {self._issuer} for {audience}: {error}") from None
        others = found.claims["aud"]
        if isinstance(others, list) and len(others) > 1 and found.claims.get("azp", audience) != audience:
            raise NotKnown("the issuer's token is of another client")
        return dict(found.claims)

    def person(self, claims: Mapping[str, Any]) -> Person:
        """Whom claims name."""
        settings = self._settings
        owner = claims.get(settings.oidc_owner_claim)
        if not isinstance(owner, str) or not 0 < len(owner) <= _MOST_OWNER or not storable(owner) or not owner.isprintable():
            raise NotKnown(f"the issuer tells no {settings.oidc_owner_claim} that can be an owner")
        if settings.oidc_owner_claim == "email" and claims.get("email_verified") is not True:
            raise NotKnown("the issuer has not verified the e-mail address")
        told = claims.get(settings.oidc_groups_claim)
        groups = [each for each in (told if isinstance(told, list) else [told]) if isinstance(each, str)]
        granted = {settings.oidc_groups[name] for name in (*groups, _EVERYBODY) if name in settings.oidc_groups}
        scope = next((each for each in _STRONGEST if each in granted), None)
        if scope is None:
            raise NotKnown(f"{owner} is in no group that may use this service")
        return Person(owner, scope, float(claims["exp"]))

    def sign_out(self) -> str | None:
        """The address at which somebody signs out of the issuer as well; None if it has none."""
        place = self._discovered().get("end_session_endpoint")
        if not isinstance(place, str):
            return None
        back = {"client_id": self._settings.oidc_client_id, "post_logout_redirect_uri": self._settings.public_url}
        return str(httpx.URL(place).copy_merge_params(back))

    def _client(self) -> Any:
        from authlib.integrations.httpx_client import OAuth2Client

        settings = self._settings
        secret = settings.oidc_client_secret
        return OAuth2Client(
            client_id=settings.oidc_client_id,
            client_secret=secret.get_secret_value() if secret else None,
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            scope=" ".join(settings.oidc_scopes),
            redirect_uri=self._back,
            code_challenge_method="S256",
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
        )

    def _found(self, name: str) -> str:
        return str(self._discovered()[name])

    def _discovered(self) -> Mapping[str, Any]:
        with self._lock:
            if self._document is None:
                found = self._fetched(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
                if found.get("issuer") != self._issuer or not all(isinstance(found.get(name), str) for name in needed):
                    raise NotReady(f"the discovery document of {self._issuer} is not that of this issuer")
                self._document = found
            return self._document

    def _key_set(self, *, again: bool = False) -> KeySet:
        """The issuer's keys; ``again`` if a signature was of none of them, at most every `_REFETCH_SECONDS`."""
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        place = self._found("jwks_uri")
        with self._lock:
            age = time.monotonic() - self._read_at
            if self._keys is None or age > _FRESH_SECONDS or (again and age > _REFETCH_SECONDS):
                try:
                    self._keys = KeySet.import_key_set(self._fetched(place))  # type: ignore[arg-type]
                except (JoseError, KeyError, TypeError, ValueError) as error:
                    raise NotReady(f"the keys of {self._issuer} can't be read: {error}") from None
                self._read_at = time.monotonic()
            return self._keys

    def _fetched(self, place: str) -> dict[str, Any]:
        """What is at an address of the issuer, which is left alone for a while after it did not answer."""
        if time.monotonic() < self._away_until:
            raise NotReady(f"the issuer {self._issuer} did not answer just now")
        self._away_until = time.monotonic() + _AWAY_SECONDS
        try:
            answer = httpx.get(place, timeout=_TIMEOUT_SECONDS, trust_env=False)
            answer.raise_for_status()
            found = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._away(error) from None
        if not isinstance(found, dict):
            raise NotReady(f"{self._issuer} does not answer as an issuer does")
        self._away_until = 0.0
        return found

    def _away(self, error: Exception) -> NotReady:
        return NotReady(f"the issuer {self._issuer} does not answer: {error}")


def token_of(secret: str, issuer: Issuer | None, store: Store, audience: str | None) -> TokenRecord | None:
    """The token of a request: one of ours or, where they are accepted, a JWT of the issuer, which is kept as one.

    Raises:
        NotReady: The issuer does not answer.
    """
    known = store.tokens.find(secret)
    if known is not None or issuer is None or audience is None or secret.count(".") != 2:
        return known
    try:
        person = issuer.person(issuer.claims(secret, audience))
    except NotKnown:
        return None
    store.tokens.adopt(secret, owner=person.owner, scope=person.scope, expires_at=person.expires_at)
    return store.tokens.find(secret)
