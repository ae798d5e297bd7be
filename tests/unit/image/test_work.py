"""Several pieces of work: all are done, or the first failure ends them all."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from coco_kp.crypto import LayerSealer
from coco_kp.errors import InputError
from coco_kp.image.progress import Progress, Stopped, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Told(Progress):
    def __init__(self) -> None:
        self.moved = 0
        self.ended: list[str] = []

    def advance(self, name: str, count: int) -> None:  # noqa: ARG002
        self.moved += count

    def end(self, name: str) -> None:
        self.ended.append(name)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Heed SIGINT even where whoever started the tests has it ignored, as ``nohup`` does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def until_stopped(work: Work, ended: threading.Event) -> None:
    try:
        while True:
            work.check()
            time.sleep(0.001)
    except Stopped:
        ended.set()
        raise


def test_work_runs_all_pieces() -> None:
    done: list[int] = []
    Work(Progress(), 2).run(partial(done.append, n) for n in range(100))
    assert sorted(done) == list(range(100))


def test_work_stops_other_pieces_and_raises_first_failure() -> None:
    work, ended, never = Work(Progress(), 2), threading.Event(), threading.Event()

    def fail() -> None:
        raise InputError("the reason")

    with pytest.raises(InputError, match="the reason"):
        work.run([partial(until_stopped, work, ended), fail, never.set, never.set])
    assert ended.is_set()
    assert threading.active_count() == 1


@pytest.mark.usefixtures("interruptible")
def test_work_stops_all_pieces_on_signal() -> None:
    work, ended = Work(Progress(), 2), threading.Event()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        work.run([partial(until_stopped, work, ended)] * 5)
    timer.join()
    assert ended.is_set()


def test_work_stops_running_pieces_on_signal_while_handing_out_more() -> None:
    work, ended = Work(Progress(), 2), threading.Event()

    def pieces() -> Iterator[Callable[[], None]]:
        yield partial(until_stopped, work, ended)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.run(pieces())
    assert ended.is_set()


def test_work_reports_progress_of_pump_and_stops_it_on_failure(tmp_path: Path) -> None:
    told = Told()
    work = Work(told, 2)
    reading, writing = os.pipe()  # whose end never comes
    size = 8 << 20

    def pump() -> None:
        target = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
        with work.pumping("layer", size) as progress:
            LayerSealer().pump(reading, target, progress=progress)

    def fail() -> None:
        os.write(writing, bytes(size))
        deadline = time.monotonic() + 10
        while told.moved == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        raise InputError("the reason")

    with pytest.raises(InputError, match="the reason"):
        work.run([pump, fail])
    assert 0 < told.moved <= size
    assert told.ended == []
    os.close(reading)
    os.close(writing)


def test_work_begins_nothing_after_a_stop() -> None:
    work = Work(Progress(), 1)

    def fail() -> None:
        raise InputError("the reason")

    with pytest.raises(InputError):
        work.run([fail])
    with pytest.raises(Stopped), work.pumping("layer", 1):
        pytest.fail("it began")
