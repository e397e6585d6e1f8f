"""Sending one request to a receiver that somebody has named, and to no machine that only the service can reach.

A name is resolved once, when the connection is made, and the address that was checked is the one that is connected to: a
name whose address changes in between (DNS rebinding) gains nothing. No redirect is followed, no proxy used, and of the
answer only the status is told. References: OWASP, "Server-Side Request Forgery Prevention Cheat Sheet"; RFC 6890.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import httpcore

SECONDS = 15.0
"""For a receiver to answer."""
AT_ONCE = 40
"""Requests under way."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_USER_AGENT = "regsearch-webhooks"


class Forbidden(httpcore.ConnectError):
    """A receiver's address is none of the public internet."""


@dataclass(frozen=True)
class Sent:
    """What came of it: a status, or why there is none. ``seconds`` it took."""

    status: int | None
    error: str | None
    seconds: float

    @property
    def received(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no more of them (410)."""
        return self.status == 410


class Guarded(httpcore.NetworkBackend):
    """Connects to public addresses only."""

    def __init__(self) -> None:
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a host that answers, if all of its addresses are public."""
        try:
            found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (socket.gaierror, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} has no address: {error}") from error
        for address in found:
            if not is_public(address):
                raise Forbidden(f"{host} has an address that is not public")
        failed: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in dict.fromkeys(found):
            try:
                return self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._plain.sleep(seconds)


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, of one machine.

    >>> [is_public(each) for each in ("93.184.216.34", "2606:2800:220:1::1")]
    [True, True]
    >>> private = ("127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1%eth0")
    >>> hidden = ("fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::")
    >>> any(is_public(each) for each in private + hidden)
    False
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


class Sender:
    """Sends requests. Thread-safe.

    Args:
        private: Whether receivers may have addresses of private networks and of this machine.
        seconds: For a receiver to answer.
    """

    def __init__(self, *, private: bool, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._pool = httpcore.ConnectionPool(
            network_backend=httpcore.SyncBackend() if private else Guarded(),
            max_connections=AT_ONCE,
            max_keepalive_connections=0,  # a kept connection would not be checked again
        )

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        """POST a body; never raises for what a receiver does."""
        start = time.monotonic()
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self._seconds)
        status, error = None, None
        try:
            wanted = {"user-agent": _USER_AGENT, **headers}
            with self._pool.stream(
                "POST", url, headers=[*wanted.items()], content=body, extensions={"timeout": limits}
            ) as answer:
                status = answer.status
        except Forbidden as refused:
            error = f"{refused} (REGSEARCH_WEBHOOKS_PRIVATE)"
        except httpcore.TimeoutException:
            error = f"no answer within {self._seconds:g} seconds"
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
            OSError,
            ValueError,
            OverflowError,
        ) as failed:
            error = f"{type(failed).__name__}: {failed}"[:300]
        return Sent(status, error, time.monotonic() - start)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
