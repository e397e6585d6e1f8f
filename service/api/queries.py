"""Query parameters: those of lists, and that a route refuses what it does not know.

A filter that is misspelt must not be a list without a filter.

One dependency of the application, so that no route can forget it. What is mounted (the dashboard) has its own parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response
from fastapi.dependencies.models import Dependant

from service.errors import InvalidInput, Issue
from service.suggestions import meant

_MOST = 50
"""Errors that an answer lists."""
_ELSEWHERE: Mapping[tuple[str, str, str], str] = {("POST", "/v1/studies", "dry_run"): "POST /v1/studies/dry-run"}
"""Routes that do what a parameter of another route would ask for."""


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for."""

    offset: int
    limit: int
    request: Request
    response: Response

    def link(self, total: int) -> None:
        """Tell where the other parts of a list of ``total`` are, in a `Link` header (RFC 8288)."""
        last = max(0, total - 1) // self.limit * self.limit
        found = {"first": 0, "prev": max(0, self.offset - self.limit), "next": self.offset + self.limit, "last": last}
        if self.offset == 0:
            del found["prev"]
        if self.offset + self.limit >= total:
            del found["next"]
        self.response.headers["link"] = ", ".join(f'<{self._at(place)}>; rel="{name}"' for name, place in found.items())

    def _at(self, offset: int) -> str:
        kept = [each for each in self.request.query_params.multi_items() if each[0] not in ("offset", "limit")]
        return f"{self.request.url.path}?{urlencode([*kept, ('offset', offset), ('limit', self.limit)])}"


async def page_of(
    request: Request,
    response: Response,
    offset: Annotated[int, Query(ge=0, lt=2**31, description="How many to skip.")] = 0,
    limit: Annotated[int, Query(ge=1, le=500, description="How many at most.")] = 50,
) -> Page:
    """The part of a list that a request asks for."""
    return Page(offset, limit, request, response)


WithPage = Annotated[Page, Depends(page_of)]
LINKED: Any = {
    200: {"headers": {"Link": {"schema": {"type": "string"}, "description": "first, prev, next, last (RFC 8288)"}}}
}


async def no_unknown_parameters(request: Request) -> None:
    """Check the names in a request's query against those of its route.

    Raises:
        InvalidInput: With an entry for each name that the route does not know, and the nearest one that it knows.
    """
    given = request.query_params
    if not given:
        return
    known = sorted(set(_names(request.scope["route"].dependant)))
    unknown = [name for name in dict.fromkeys(given) if name not in known]
    if unknown:
        raise InvalidInput([_issue(request, name, given[name], known) for name in unknown[:_MOST]])


def _names(dependant: Dependant) -> Iterator[str]:
    """The names of all query parameters of a route."""
    for field in dependant.query_params:
        yield field.alias
    for part in dependant.dependencies:
        yield from _names(part)


def _issue(request: Request, name: str, value: str, known: list[str]) -> Issue:
    elsewhere = _ELSEWHERE.get((request.method, request.scope["route"].path, name))
    close = elsewhere or meant(name, known)
    hint = f"; did you mean {close}?" if close else ""
    return Issue(name, f"is not a known query parameter{hint}", value, known or "no query parameters")
