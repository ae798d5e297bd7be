"""Events: what the rest of the code says of its work, without secrets.

An event is a word and fields of known names; requests, keys, packets and parameters are never among
them, so no level of verbosity can show them. Text that a caller wrote is made printable first.
Events go to stderr, as text or JSON, a line an event, and to those who observe them, such as
metrics, at whatever level lines are written.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal, TextIO, TypeGuard

from coco_kp.errors import RemoteError
from coco_kp.redact import printable

_MOST_WAITING: Final = 1000
"""Lines that wait to be written, at the most: some seconds of a busy server's."""

_GATHER: Final = 0.02  # seconds for which lines wait for others, to be written with them
_LAST_LINES: Final = 1.0  # seconds for lines that wait when a server ends

LogFormat = Literal["text", "json"]

_FIELDS: Final = frozenset(
    {
        *("address", "client", "code", "count", "digest", "expires", "kid"),
        *("message", "method", "name", "outcome", "seconds"),
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


class Question:
    """What another was asked; ``refused`` is set where its answer is no."""

    refused = False


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


@contextmanager
def in_background() -> Iterator[None]:
    """Have lines written by a thread of their own, so that nobody waits for who reads stderr.

    Lines beyond ``_MOST_WAITING``, and those that cannot be written, are dropped and counted. To be
    entered after a fork. On leaving, what waits is written, for a second at the most.
    """
    before = _logger.handlers[:]
    ours = next(filter(_is_of_a_file, before), None)
    if ours is None:  # a program that uses us takes the events otherwise
        yield
        return
    writer = _Writer(ours)
    _logger.handlers[:] = [writer if handler is ours else handler for handler in before]
    try:
        yield
    finally:
        if writer.end():
            _logger.handlers[:] = before


def dropped_lines() -> int:
    """Return how many lines this process has dropped, rather than wait."""
    return _Writer.dropped


def _is_of_a_file(handler: logging.Handler) -> TypeGuard[logging.StreamHandler[TextIO]]:
    if not isinstance(handler, logging.StreamHandler):
        return False
    try:
        return bool(handler.stream.fileno() >= 0)
    except (AttributeError, OSError, ValueError):
        return False


class _Writer(logging.Handler):
    """Keeps records for a thread that writes them, where a handler would."""

    dropped = 0  # of the process

    def __init__(self, handler: logging.StreamHandler[TextIO]) -> None:
        super().__init__()
        self.setFormatter(handler.formatter)
        self._file = handler.stream.fileno()
        self._waiting: deque[logging.LogRecord] = deque()
        self._work = threading.Event()
        self._ending = False
        self._reported = _Writer.dropped
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(record)
        else:
            _Writer.dropped += 1
        self._work.set()

    def end(self) -> bool:
        """Write what waits, and end; return whether that was done in time."""
        self._ending = True
        self._work.set()
        self._thread.join(_LAST_LINES)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ending or self._waiting:
            self._work.wait()
            if not self._ending:
                time.sleep(_GATHER)  # a call that goes on has the interpreter to itself
            self._work.clear()
            while self._waiting:
                if not self._write(self._waiting.popleft()):
                    _Writer.dropped += 1
            self._report()

    def _report(self) -> None:
        missing = _Writer.dropped - self._reported
        if missing and self._write(_record(logging.WARNING, "lines dropped", count=missing)):
            self._reported += missing

    def _write(self, record: logging.LogRecord) -> bool:
        line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError:  # a full disk, a pipe that nobody reads any more
            return False
        return True


def _record(level: int, name: str, **fields: str | float) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"levelno": level, "levelname": logging.getLevelName(level), "msg": name, "fields": fields}
    )


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
