"""Structured logs for every process: text for people, one JSON object per line for collectors."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType

from service.settings import Settings
from service.tracing import trace_id

_FIELDS: ContextVar[Mapping[str, object]] = ContextVar("fields", default=MappingProxyType({}))

# `color_message` is uvicorn's copy of the message with escape codes.
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def set_up_logging(settings: Settings) -> None:
    """Log to standard error, in the format and from the level that the operator has set."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    handler.addFilter(_Joined())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in ("alembic", "optuna", "uvicorn.access", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextmanager
def log_fields(**fields: object) -> Iterator[None]:
    """Records of the block have these fields, too: of this thread, and of threads that get a copy of its context."""
    token = _FIELDS.set({**_FIELDS.get(), **fields})
    try:
        yield
    finally:
        _FIELDS.reset(token)


class _Joined(logging.Filter):
    """Gives records the fields of the block that they are made in, and the id of its trace."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        fields = dict(_FIELDS.get())
        if (trace := trace_id()) is not None:
            fields["trace_id"] = trace
        for name, value in fields.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object, with the fields passed as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as time, level, message and the fields passed as ``extra``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        extra = " ".join(f"{name}={_word(value)}" for name, value in _extra(record).items())
        return f"{super().format(record)} {extra}".rstrip()


def _word(value: object) -> str:
    """A value as text that can't be mistaken for another field or line, even if a client has chosen it."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and not name.startswith("_")}
