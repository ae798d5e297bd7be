from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from coco_kp.errors import KekError, RefusedError, UnreachableError
from coco_kp.observe import asking, configure, dropped_lines, event, in_background, observed_by
from tests.support.events import Events
from tests.support.patience import ends, wait_until


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    logger = logging.getLogger("coco_kp")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def test_event_is_logged_as_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text", logging.INFO)
    event(logging.INFO, "answered", method="keywrap", kid="kbs:///default/key/1", seconds=0.00123)
    out, err = capsys.readouterr()
    assert out == ""
    time, line = err.split(" ", 1)
    assert line == 'info answered method=keywrap kid="kbs:///default/key/1" seconds=0.0012\n'
    assert time[10] == "T"


def test_event_is_logged_as_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", logging.INFO)
    event(logging.WARNING, "warning", message="others may read 'ä'")
    (line,) = capsys.readouterr().err.splitlines()
    document = json.loads(line)
    assert document.pop("time")
    assert document == {"level": "warning", "event": "warning", "message": "others may read 'ä'"}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_event_is_one_printable_line_whatever_its_text(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure("json" if log_format == "json" else "text", logging.INFO)
    event(logging.INFO, "refused", message="a\nb\r\0\x1b[2J\x9b2J\u2028 \N{RIGHT-TO-LEFT OVERRIDE}")
    (line,) = capsys.readouterr().err.split("\n")[:-1]
    assert line.isprintable()


@pytest.mark.parametrize("field", ["request", "optsdata", "parameters", "packet", "key", "path"])
def test_event_refuses_field_that_could_hold_a_secret(field: str) -> None:
    with pytest.raises(ValueError, match=f"^no such log field: {field}$"):
        event(logging.DEBUG, "call", **{field: "x"})


def test_event_below_configured_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text", logging.WARNING)
    event(logging.INFO, "answered", method="keywrap")
    assert capsys.readouterr().err == ""


def test_configure_twice_does_not_duplicate_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        configure("text", logging.INFO)
    event(logging.INFO, "ready", address="127.0.0.1:1")
    assert capsys.readouterr().err.count("\n") == 1


def test_observer_is_told_of_events_below_the_configured_level_while_the_block_runs() -> None:
    configure("text", logging.ERROR)
    seen = Events()
    with observed_by(seen):
        event(logging.DEBUG, "began", method="keywrap")
    event(logging.ERROR, "bug", method="keywrap")
    assert seen == [("began", {"method": "keywrap"})]


def test_observers_are_told_side_by_side() -> None:
    first, second = Events(), Events()
    with observed_by(first):
        with observed_by(second):
            event(logging.DEBUG, "both")
        event(logging.DEBUG, "one")
    assert (len(first), len(second)) == (2, 1)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (UnreachableError("no answer in time"), "unreachable"),
        (KekError("there is no key"), "refused"),
        (RefusedError("not over plain http"), "refused"),
        (ZeroDivisionError(), "refused"),
    ],
)
def test_asking_reports_how_it_ended_and_lets_errors_pass(
    error: Exception | None, outcome: str
) -> None:
    seen = Events()
    with observed_by(seen), pytest.raises(type(error)) if error else nullcontext(), asking("vault"):
        if error:
            raise error
    ((name, fields),) = seen
    assert name == "asked"
    assert float(fields.pop("seconds")) >= 0
    assert fields == {"name": "vault", "outcome": outcome}


def test_asking_reports_an_answer_that_is_no() -> None:
    seen = Events()
    with observed_by(seen), asking("kbs") as question:
        question.refused = True
    assert seen.outcomes("kbs") == ["refused"]


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The reading end of a pipe that is standard error, and holds a page."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        configure("json", logging.INFO)
        yield reading
    os.close(reading)


def events_in(stderr: int, last: str) -> list[dict[str, Any]]:
    """Read events until one of this name."""
    found: list[dict[str, Any]] = []
    with os.fdopen(os.dup(stderr)) as lines:
        while not found or found[-1]["event"] != last:
            found.append(json.loads(lines.readline()))
    return found


def test_lines_in_background_come_in_their_order(stderr: int) -> None:
    with in_background():
        for number in range(10):
            event(logging.INFO, "answered", seconds=number)
    event(logging.INFO, "end")
    assert [line.get("seconds") for line in events_in(stderr, "end")] == [*range(10), None]


def test_line_is_dropped_and_counted_when_nobody_reads_stderr(
    stderr: int,
) -> None:
    """A server whose log was a pipe that nobody read stood still with all its calls."""
    before = dropped_lines()
    with ends(), in_background():
        for _ in range(5000):
            event(logging.INFO, "answered", kid="x" * 100)
        dropped = dropped_lines() - before
        assert 0 < dropped < 5000
        lines = events_in(stderr, "lines dropped")
    assert lines[-1]["count"] == dropped
    assert len(lines) - 1 == 5000 - dropped


def test_line_that_cannot_be_written_is_dropped_and_counted(
    stderr: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    full = [True]

    def written(descriptor: int, data: bytes) -> int:
        if full and b'"event": ' in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", written)
    before = dropped_lines()
    with in_background():
        event(logging.INFO, "answered")
        wait_until(lambda: dropped_lines() > before)
        full.clear()
        event(logging.INFO, "refused")
        lines = events_in(stderr, "lines dropped")
    assert [line["event"] for line in lines] == ["refused", "lines dropped"]


def test_end_waits_no_longer_than_a_second_for_lines_that_nobody_reads(
    stderr: int,
) -> None:
    with ends(), in_background():
        for _ in range(100):
            event(logging.INFO, "answered", kid="x" * 100)
    events_in(stderr, "answered")  # lets the thread end
    event(logging.INFO, "still nobody waits")
    with os.fdopen(os.dup(stderr)) as lines:
        while "still nobody waits" not in lines.readline():
            pass
