"""The service over HTTP, for the command line; its problem documents become one exception that knows how to be shown."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import httpx

from service.errors import RegsearchError

if TYPE_CHECKING:  # the models take a while to load
    from service.result import StudyResult


class Refused(RegsearchError):
    """The service answered with a problem document; ``retry_after`` seconds from now the answer may be another."""

    def __init__(self, document: Mapping[str, Any], retry_after: float | None = None) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or document))
        self.retry_after = retry_after
        self.status = int(document.get("status", 0))
        self.errors: list[Mapping[str, Any]] = list(document.get("errors", []))


class Unreachable(RegsearchError):
    """Nobody answers at the address."""


class Client:
    """Calls to one service.

    Raises (every method):
        Refused: The service says no, and why.
        Unreachable: There is no service at the address.
    """

    def __init__(self, url: str, *, timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout, trust_env=False)
        except httpx.InvalidURL as error:
            raise Unreachable(f"{url!r} is not an address: {error}") from None

    def get(self, path: str, **query: Any) -> Any:
        """GET; the decoded answer."""
        return self._call("GET", path, params=query)

    def result(self, study_id: int) -> StudyResult:
        """The result of a finished study.

        Raises:
            Unreachable: What answers gives no result that this version can read.
        """
        from pydantic import ValidationError

        from service.result import StudyResult

        try:
            return StudyResult.model_validate(self.get(f"/v1/studies/{study_id}/result"))
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise Unreachable(f"the result of study {study_id} at {self.url} can't be read here: {place}") from None

    def post(self, path: str, body: Any = None) -> Any:
        """POST JSON; the decoded answer."""
        return self._call("POST", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE."""
        self._call("DELETE", path)

    def upload(self, path: Path, name: str | None) -> Any:
        """Send a file as a data set."""
        with path.open("rb") as stream:
            return self._call(
                "POST",
                "/v1/datasets",
                files={"file": (path.name, stream)},
                data={"name": name} if name else {},
                timeout=None,
            )

    def download(self, path: str, *, patience: float = 0.0, **query: Any) -> bytes:
        """GET; the answer's bytes, whatever they are. What is not there yet is asked for again for ``patience`` seconds."""
        give_up = time.monotonic() + patience
        while True:
            answer = self._request("GET", path, params=query)
            if answer.is_success:
                return answer.content
            try:
                _refuse(answer, self.url)
            except Refused as refused:
                if refused.retry_after is None or time.monotonic() + refused.retry_after > give_up:
                    raise
                time.sleep(refused.retry_after)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def wait_until_ready(self, seconds: float) -> None:
        """Return once the service answers /readyz."""
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
        answer = self._request(method, path, **options)
        if answer.status_code == httpx.codes.NO_CONTENT:
            return None
        try:
            document = answer.json()
        except ValueError:
            document = None
        if document is None or not answer.is_success:
            _refuse(answer, self.url)
        return document

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.UnsupportedProtocol:
            raise Unreachable(f"{self.url!r} is not an address: it must begin with http:// or https://") from None
        except httpx.HTTPError as error:
            raise Unreachable(f"no service answers at {self.url} ({error}); start one with: regsearch up") from None


def _refuse(answer: httpx.Response, url: str) -> NoReturn:
    """Raise what an answer other than the wanted one means: a problem document, or that nobody of ours is there."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or not answer.is_error or "title" not in document:
        raise Unreachable(f"what answers at {url} is not regsearch (status {answer.status_code})")
    seconds = answer.headers.get("retry-after", "")
    raise Refused(document, float(seconds) if seconds.isdecimal() else None)
