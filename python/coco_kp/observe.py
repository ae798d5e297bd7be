"""Events: what the rest of the code says of its work, without secrets.

An event is a word and fields of known names; requests, keys, packets and parameters are no fields,
so no level of verbosity can show them. Text that a caller wrote is made printable first. Events go
to stderr, as text or JSON, a line an event, and to those who observe them, such as metrics, at
whatever level lines are written.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from coco_kp.errors import RemoteError
from coco_kp.redact import printable

LogFormat = Literal["text", "json"]

_FIELDS: Final = frozenset(
    {
        *("address", "algorithm", "client", "code", "digest", "expires", "hint", "kbc", "kid"),
        *("message", "method", "name", "outcome", "pid", "seconds"),
    }
)

UNWRITTEN: Final = 5
"""The level of events for observers alone: no verbosity has them written."""

Observer = Callable[[str, Mapping[str, str | float]], None]
"""Takes an event's word and fields. It is called by the thread in which that happens: it must not
wait for anything, and not raise."""

_observers: tuple[Observer, ...] = ()

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
    for observer in _observers:
        observer(name, fields)


@contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Hand all events of the process to an observer, too, while the block runs."""
    global _observers  # noqa: PLW0603 (events are of the process, as its log is)
    _observers = (*_observers, observer)
    try:
        yield
    finally:
        _observers = tuple(one for one in _observers if one is not observer)


@dataclass(slots=True)
class Question:
    """What another was asked; ``refused`` is set where its answer is no."""

    refused: bool = False


@contextmanager
def asking(name: str) -> Iterator[Question]:
    """Report how it ended that ``name`` (a kind, such as ``vault``) was asked in the block.

    The event is ``asked``, its outcome ``ok``, ``unreachable`` for a ``RemoteError``, and
    ``refused`` for all other errors, and where the answer was no.
    """
    began = time.monotonic()
    question, outcome = Question(), "refused"
    try:
        yield question
        outcome = "refused" if question.refused else "ok"
    except RemoteError:
        outcome = "unreachable"
        raise
    finally:
        seconds = time.monotonic() - began
        event(logging.DEBUG, "asked", name=name, outcome=outcome, seconds=seconds)


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
