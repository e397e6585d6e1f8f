"""Traces from submit to the answer, by OpenTelemetry; without an address to send them to, nothing is imported or done.

    set_up_tracing(settings, "regsearch-worker")
    with joined(carrier), span("search", study=3):
        ...

A study keeps the W3C context (`traceparent`) of the request that submitted it, and what workers do for it joins that trace.
A span is of the thread and of the threads that are started with a copy of its context. Thread-safe.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from service.errors import RegsearchError
from service.settings import Settings

CARRIED = "traceparent"
"""The attribute of a study, and the header of a request, that has the W3C context."""

_NOTHING = nullcontext()
_tracer: Any = None
_provider: Any = None


class TracingUnavailable(RegsearchError):
    """Traces are asked for, and OpenTelemetry is not installed."""


def set_up_tracing(settings: Settings, name: str) -> None:
    """Send this process's traces to `traces_url`, as those of the service ``name``; nothing if there is no address.

    Raises:
        TracingUnavailable: The extra `otel` is not installed.
    """
    global _tracer, _provider  # noqa: PLW0603  # one per process, as OpenTelemetry has it
    if not settings.traces_url:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        message = f"REGSEARCH_TRACES_URL needs OpenTelemetry: pip install 'regsearch[otel]' ({error})"
        raise TracingUnavailable(message) from None
    exporter = OTLPSpanExporter(endpoint=f"{settings.traces_url.rstrip('/')}/v1/traces")
    _provider = TracerProvider(resource=Resource.create({"service.name": name}))
    _provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    _tracer = _provider.get_tracer("regsearch")


def end_tracing() -> None:
    """Send what has not been sent, at the end of the process."""
    global _tracer, _provider  # noqa: PLW0603
    if _provider is not None:
        _provider.shutdown()
    _tracer = _provider = None


def tracing() -> bool:
    """Whether traces are made."""
    return _tracer is not None


def span(name: str, *, began_ns: int | None = None, **attributes: Any) -> AbstractContextManager[Any]:
    """A span around a block, a part of the one around it; it began now, or at ``began_ns`` of the system's clock."""
    if _tracer is None:
        return _NOTHING
    named = {f"regsearch.{key}": value for key, value in attributes.items() if value is not None}
    opened: AbstractContextManager[Any] = _tracer.start_as_current_span(name, attributes=named, start_time=began_ns)
    return opened


@contextlib.contextmanager
def joined(carrier: Mapping[str, Any]) -> Iterator[None]:
    """Spans of the block belong to the trace of a request, or of a study, by its `traceparent`."""
    if _tracer is None or not carrier.get(CARRIED):
        yield
        return
    from opentelemetry import context, propagate  # noqa: PLC0415

    token = context.attach(propagate.extract({CARRIED: str(carrier[CARRIED])}))
    try:
        yield
    finally:
        context.detach(token)


def carried() -> dict[str, str]:
    """The context of the current span as a W3C `traceparent`; empty without one."""
    if _tracer is None:
        return {}
    from opentelemetry import propagate  # noqa: PLC0415

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {name: value for name, value in carrier.items() if name == CARRIED}


def trace_id() -> str | None:
    """The id of the current trace, as 32 hexadecimal digits."""
    found = carried().get(CARRIED)
    return None if found is None else found.split("-")[1]
