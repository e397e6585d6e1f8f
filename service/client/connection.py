"""A connection to a service: requests and responses; a problem document becomes an exception that holds its entries."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import httpx

from service.atomic import write_whole
from service.client.credentials import token_for
from service.errors import RegsearchError

if TYPE_CHECKING:  # the models take a while to load
    from service.result import StudyResult
    from service.result.external import ExternalStudyResult


_SOON_SECONDS = 15
"""A request that may be sent again so soon is sent again by itself."""
_PATIENCE_SECONDS = 60.0


class Refused(RegsearchError):
    """The service answered with a problem document; ``retry_after`` seconds from now the answer may be another.

    ``error`` is a word for programs, of answers that have one (RFC 8628).
    """

    def __init__(self, document: Mapping[str, Any], retry_after: float | None = None) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or document))
        self.retry_after = retry_after
        self.status = int(document.get("status", 0))
        self.error = str(document.get("error", ""))
        self.errors: list[Mapping[str, Any]] = list(document.get("errors", []))


class Unreachable(RegsearchError):
    """No regsearch service answers at the address."""


def is_outage(error: Unreachable | Refused) -> bool:
    """Whether a service may answer later, as after a restart, or when fewer requests have been sent."""
    return isinstance(error, Unreachable) or error.status >= 500 or error.status == httpx.codes.TOO_MANY_REQUESTS


class HttpClient:
    """Calls to one service. Thread-safe.

    Raises (every method):
        Refused: The service rejected the request; with its reasons.
        Unreachable: No regsearch service answers at the address.
    """

    def __init__(self, url: str, *, timeout: float = 60.0, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        token = token or token_for(self.url)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout, trust_env=False, headers=headers)
        except httpx.InvalidURL as error:
            raise Unreachable(f"{url!r} is not an address: {error}") from None

    def get(self, path: str, **query: Any) -> Any:
        """GET a path; returns the decoded response."""
        return self._call("GET", path, params=query)

    def result(self, study_id: int) -> StudyResult | ExternalStudyResult:
        """The result of a finished study.

        Raises:
            Unreachable: The response is not a result that this version can read.
        """
        from pydantic import ValidationError

        from service.result import StudyResult
        from service.result.external import ExternalStudyResult

        document = self.get(f"/v1/studies/{study_id}/result")
        kind = ExternalStudyResult if document.get("executor") == "external" else StudyResult
        try:
            return kind.model_validate(document)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise Unreachable(
                f"the result of study {study_id} at {self.url} can't be read by this version: field {place}"
            ) from None

    def post(self, path: str, body: Any = None) -> Any:
        """POST JSON to a path; returns the decoded response."""
        return self._call("POST", path, json=body)

    def submit_form(self, path: str, fields: Mapping[str, str]) -> Any:
        """POST a form to a path; returns the decoded response."""
        return self._call("POST", path, data=fields)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH a path with JSON; returns the decoded response."""
        return self._call("PATCH", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        """PUT JSON to a path; returns the decoded response."""
        return self._call("PUT", path, json=body)

    def repeat(self, path: str, body: Any, *, patience: float) -> Any:
        """As `post`, for requests that may be repeated: through an outage of at most ``patience`` seconds."""
        give_up, pause = time.monotonic() + patience, 0.1
        while True:
            try:
                return self.post(path, body)
            except (Unreachable, Refused) as error:
                if isinstance(error, Refused) and error.status == httpx.codes.TOO_MANY_REQUESTS:
                    pause = max(pause, error.retry_after or 0.0)
                if not is_outage(error) or time.monotonic() + pause > give_up:
                    raise
            time.sleep(pause)
            pause = min(5.0, 2.0 * pause)

    def delete(self, path: str) -> Any:
        """DELETE a path; returns the JSON document, if there is one."""
        return self._call("DELETE", path)

    def upload(self, source: Path | str, name: str | None) -> Any:
        """Make a file a data set, or what is at an address that the service fetches; returns the decoded response."""
        if "://" in str(source):
            return self._fetch({"address": source, "name": name})
        path = Path(source)
        with path.open("rb") as stream:
            return self._call(
                "POST",
                "/v1/datasets",
                files={"file": (path.name, stream)},
                data={"name": name} if name else {},
                timeout=None,
            )

    def query(self, database: str, query: str, name: str | None) -> Any:
        """Make the rows of a query a data set; returns the decoded response."""
        return self._fetch({"database": database, "query": query, "name": name})

    def _fetch(self, body: Any) -> Any:
        return self._call("POST", "/v1/datasets", json=body, timeout=None)

    def download(self, path: str, *, patience: float = 0.0, **query: Any) -> bytes:
        """GET a path; returns the response's bytes. What is not there yet is requested again for ``patience`` seconds."""
        give_up = time.monotonic() + patience
        while True:
            response = self._request("GET", path, params=query)
            if response.is_success:
                return response.content
            try:
                _refuse(response, self.url)
            except Refused as refused:
                if refused.retry_after is None or time.monotonic() + refused.retry_after > give_up:
                    raise
                time.sleep(refused.retry_after)

    def save(self, path: str, target: Path, **query: Any) -> None:
        """GET a path into a file, which is there as a whole or not at all."""

        def write(file: BinaryIO) -> None:
            with self._http.stream("GET", path, params=query, timeout=None) as response:
                if not response.is_success:
                    response.read()
                    _refuse(response, self.url)
                for piece in response.iter_bytes():
                    file.write(piece)

        try:
            write_whole(target, write)
        except httpx.HTTPError as error:
            raise Unreachable(f"the service at {self.url} did not send all of it ({error})") from None

    def restore(self, archive: Path) -> Any:
        """Restore a study from its archive; returns the decoded response."""
        with archive.open("rb") as stream:
            files = {"file": (archive.name, stream)}
            return self._call("POST", "/v1/studies:restore", files=files, timeout=None)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until the service is ready.

        Raises:
            Refused, Unreachable: It is not ready within ``seconds``.
        """
        give_up = time.monotonic() + seconds
        while True:
            try:
                self.get("/readyz")
            except (Unreachable, Refused):
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)
            else:
                return

    def _call(self, method: str, path: str, **options: Any) -> Any:
        response = self._request(method, path, **options)
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        try:
            document = visible(response.json())
        except ValueError:
            document = None
        if document is None or not response.is_success:
            _refuse(response, self.url)
        return document

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request, again if it was one too many in this minute; files, which have been read by then, only once."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            response = self._send(method, path, **options)
            seconds = response.headers.get("retry-after", "")
            too_many = response.status_code == httpx.codes.TOO_MANY_REQUESTS and seconds.isdecimal()
            soon = too_many and int(seconds) <= _SOON_SECONDS and time.monotonic() < give_up
            if not soon or "files" in options:
                return response
            time.sleep(int(seconds))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.UnsupportedProtocol:
            raise Unreachable(f"{self.url!r} is not an address: it must begin with http:// or https://") from None
        except httpx.HTTPError as error:
            raise Unreachable(f"no service answers at {self.url} ({error}); start one with: regsearch up") from None


_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def visible(document: Any) -> Any:
    """A decoded response without control characters, with which a name could write anything on a terminal."""
    match document:
        case str():
            return document.translate(_CONTROL)
        case list():
            return [visible(each) for each in document]
        case dict():
            return {visible(key): visible(value) for key, value in document.items()}
        case _:
            return document


def _refuse(response: httpx.Response, url: str) -> NoReturn:
    """Raise `Refused` for a problem document, and `Unreachable` for any other response: it is not regsearch's."""
    try:
        document = visible(response.json())
    except ValueError:
        document = None
    if not isinstance(document, dict) or not response.is_error or "title" not in document:
        raise Unreachable(f"the server at {url} is not regsearch (status {response.status_code})")
    seconds = response.headers.get("retry-after", "")
    raise Refused(document, float(seconds) if seconds.isdecimal() else None)
