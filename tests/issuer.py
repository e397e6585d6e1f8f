"""A small OpenID Connect issuer with real keys over real HTTP, which signs everybody in as whom the test says."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "regsearch", "a secret of the client"
_BASIC = f"Basic {base64.b64encode(f'{CLIENT}:{SECRET}'.encode()).decode()}"


class TestIssuer:
    """An issuer; ``person`` are the claims of whoever signs in next, ``spoilt`` changes those of the next ID token."""

    __test__ = False

    def __init__(self) -> None:
        self.person: dict[str, Any] = {"sub": "ann", "groups": ["staff"]}
        self.spoilt: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.signed_out: list[dict[str, str]] = []
        self.rotate()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def document(self) -> dict[str, str]:
        """What it tells of itself."""
        places = {"authorization": "authorize", "token": "token", "end_session": "logout"}
        ends = {f"{name}_endpoint": f"{self.url}/{place}" for name, place in places.items()}
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **ends}

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig", "alg": "RS256"})

    def token(self, key: Any = None, **claims: Any) -> str:
        """A JWT of this issuer, with claims that replace the usual ones; None leaves one out."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, **self.person}
        found = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        signer = key or self.key
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, found, signer)

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def _handler(issuer: TestIssuer) -> type[BaseHTTPRequestHandler]:  # noqa: C901  (a class)
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            match parts.path:
                case "/.well-known/openid-configuration":
                    self._json(issuer.document)
                case "/keys":
                    self._json({"keys": [issuer.key.as_dict(private=False)]})
                case "/authorize":
                    code = secrets.token_hex(8)
                    issuer.codes[code] = query
                    self._redirect(f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}")
                case "/logout":
                    issuer.signed_out.append(query)
                    self._redirect(query["post_logout_redirect_uri"])
                case _:
                    self.send_error(404)

        def do_POST(self) -> None:
            fields = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
            asked = issuer.codes.pop(fields.get("code", ""), None)
            challenge = base64.urlsafe_b64encode(hashlib.sha256(fields.get("code_verifier", "").encode()).digest())
            known = self.headers["authorization"] == _BASIC
            if not known or asked is None or asked["code_challenge"] != challenge.rstrip(b"=").decode():
                self._json({"error": "invalid_grant"}, 400)
                return
            token = issuer.token(**{"nonce": asked["nonce"], **issuer.spoilt})
            issuer.spoilt = {}
            self._json({"access_token": "x", "token_type": "Bearer", "id_token": token})

        def _json(self, document: Any, status: int = 200) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _redirect(self, place: str) -> None:
            self.send_response(303)
            self.send_header("location", place)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
