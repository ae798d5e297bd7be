"""Logs: to stderr, as text or JSON, a line an event, without secrets.

An event is a word and fields of known names; requests, keys, packets and parameters are no fields,
so no level of verbosity can show them. Text that a caller wrote is made printable first.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Final, Literal

from coco_kp.redact import printable

LogFormat = Literal["text", "json"]

_FIELDS: Final = frozenset(
    {
        *("address", "algorithm", "code", "digest", "hint", "kbc", "kid", "message", "method"),
        *("name", "pid", "seconds"),
    }
)

_logger = logging.getLogger("coco_kp")


def configure(log_format: LogFormat, level: int) -> None:
    """Write events of ``level`` (of ``logging``) and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    _logger.handlers[:] = [handler]
    _logger.propagate = False
    _logger.setLevel(level)


def event(level: int, name: str, /, **fields: str | float) -> None:
    """Log an event. Raises ``ValueError`` for a field that is not known to be harmless."""
    unknown = fields.keys() - _FIELDS
    if unknown:
        raise ValueError(f"no such log field: {', '.join(sorted(unknown))}")
    if _logger.isEnabledFor(level):
        _logger.log(level, name, extra={"fields": fields})


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={_text(value)}" for name, value in _fields(record).items())
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z")
        words = printable(record.getMessage())
        return f"{time} {record.levelname.lower()} {words} {fields}".rstrip()


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_fields(record),
        }
        return json.dumps(line)


def _fields(record: logging.LogRecord) -> dict[str, str | float]:
    fields: dict[str, str | float] = getattr(record, "fields", {})
    return fields


def _text(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    text = str(value)
    # As a second line of defence: what is not printable leaves as an escape.
    return text if text.isidentifier() else json.dumps(value, ensure_ascii=not text.isprintable())
