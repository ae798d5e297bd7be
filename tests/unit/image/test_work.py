"""Several pieces of work: all are done, or the first failure ends them all."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from coco_kp.crypto import LayerSealer
from coco_kp.deadline import Caller, within
from coco_kp.errors import CancelledError, InputError
from coco_kp.image import work as work_module
from coco_kp.image.progress import Progress
from coco_kp.image.work import TRANSFERS, Stopped, Work
from coco_kp.model.reference import parse_image_reference
from tests.support.signals import heeding

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
    """Heed SIGINT."""
    with heeding(signal.SIGINT):
        yield


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


@pytest.mark.parametrize(
    ("jobs", "place", "at_once", "threads"),
    [
        (None, "oci:app", 2, [2, 1]),
        (None, "docker://host/app", TRANSFERS, [2, 1]),
        (1, "docker://host/app", 1, [1, 1]),
        (4, "docker://host/app", 4, [2, 2]),
    ],
)
def test_work_has_more_jobs_than_processors_only_for_registries(
    monkeypatch: pytest.MonkeyPatch,
    jobs: int | None,
    place: str,
    at_once: int,
    threads: list[int],
) -> None:
    """Who waits for a registry needs no processor; who has one needs no second thread."""
    monkeypatch.setattr(work_module, "processors", lambda: 2)
    places = (parse_image_reference("oci:other"), parse_image_reference(place))
    work = Work(Progress(), jobs, places=places)
    assert work.jobs == at_once
    assert [work.threads_for(layers) for layers in (1, 2)] == threads


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_work_does_all_pieces_with_the_threads_that_are_to_be_had(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Under a limit on processes (``pids`` of a container), Python raises what is raised here."""
    start, started, done = threading.Thread.start, list[int](), list[int]()

    def limited(thread: threading.Thread) -> None:
        if len(started) == threads:
            raise RuntimeError("can't start new thread")
        started.append(0)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    Work(Progress(), 4).run(partial(done.append, n) for n in range(100))
    assert sorted(done) == list(range(100))
    started.clear()
    with pytest.raises(IndexError, match="of a piece"):
        Work(Progress(), 4).run([partial(done.append, 0), failing, partial(done.append, 0)])


def failing() -> None:
    raise IndexError("of a piece")


def test_work_stops_other_pieces_and_raises_first_failure() -> None:
    before = set(threading.enumerate())
    work, ended, never = Work(Progress(), 2), threading.Event(), threading.Event()

    def fail() -> None:
        raise InputError("the reason")

    with pytest.raises(InputError, match="the reason"):
        work.run([partial(until_stopped, work, ended), fail, never.set, never.set])
    assert ended.is_set()
    assert set(threading.enumerate()) <= before


@pytest.mark.usefixtures("interruptible")
def test_work_stops_all_pieces_on_signal() -> None:
    work, ended = Work(Progress(), 2), threading.Event()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        work.run([partial(until_stopped, work, ended)] * 5)
    timer.join()
    assert ended.is_set()


def test_work_stops_running_pieces_on_signal_while_starting_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work, begun, ended = Work(Progress(), 2), threading.Event(), threading.Event()
    submit = ThreadPoolExecutor.submit

    def interrupted(pool: ThreadPoolExecutor, work_off: Callable[[], None]) -> Future[None]:
        if begun.is_set():
            raise KeyboardInterrupt
        future = submit(pool, work_off)
        begun.wait()
        return future

    def piece() -> None:
        begun.set()
        until_stopped(work, ended)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work.run([piece] * 2)
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


@pytest.mark.parametrize("alone", [False, True])
def test_work_stops_pump_when_its_caller_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    """Also where no further thread is to be had, and nobody but the pump's thread is there."""
    work, caller = Work(Progress(), 1), Caller()
    reading, writing = os.pipe()  # whose end never comes

    def pump() -> None:
        target = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
        with work.pumping("layer", 8 << 20) as progress:
            leaving = threading.Timer(0.05, caller.leave)
            leaving.start()
            LayerSealer().pump(reading, target, progress=progress)

    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    if alone:
        monkeypatch.setattr(ThreadPoolExecutor, "submit", none)
    with within(math.inf, caller), pytest.raises(CancelledError, match="the call was cancelled"):
        work.run([pump])
    os.close(reading)
    os.close(writing)


class Strict(Progress):
    """Knows of a layer from its begin on, as bars do; ``beginning`` is what that does."""

    def __init__(self, beginning: Callable[[], object]) -> None:
        self._beginning = beginning
        self._moved = dict[str, int]()
        self.early = threading.Event()

    def begin(self, name: str, size: int) -> None:  # noqa: ARG002
        self._beginning()
        self._moved[name] = 0

    def advance(self, name: str, count: int) -> None:
        if name not in self._moved:
            self.early.set()
        self._moved[name] += count


def test_progress_that_begins_slowly_is_told_of_no_advance_before() -> None:
    """Whoever looks at the pumps meanwhile found one that progress did not know: KeyError."""
    told = Strict(lambda: told.early.wait(0.5))
    work = Work(told, 1)

    def pump() -> None:
        with work.pumping("layer", 1):
            pass

    work.run([pump])
    assert not told.early.is_set()


def test_pump_that_is_not_begun_raises_why() -> None:
    caller = Caller()
    caller.leave()
    work = Work(Strict(failing), 1)
    with (
        within(math.inf, caller),
        pytest.raises(CancelledError, match="the call was cancelled"),
        work.pumping("layer", 1),
    ):
        pytest.fail("it began")
    with pytest.raises(IndexError, match="of a piece"), work.pumping("layer", 1):
        pytest.fail("it began")


@pytest.mark.parametrize("stopped", [False, True])
def test_pump_whose_work_ends_while_progress_begins_does_not_begin(*, stopped: bool) -> None:
    caller = Caller()

    def fail() -> None:
        raise InputError("the reason")

    def end() -> None:
        if stopped:
            with pytest.raises(InputError):
                work.run([fail])
        else:
            caller.leave()

    work = Work(Strict(end), 1)
    with (
        within(math.inf, caller),
        pytest.raises(Stopped if stopped else CancelledError),
        work.pumping("layer", 1),
    ):
        pytest.fail("it began")


def test_work_begins_nothing_after_a_stop() -> None:
    work = Work(Progress(), 1)

    def fail() -> None:
        raise InputError("the reason")

    with pytest.raises(InputError):
        work.run([fail])
    with pytest.raises(Stopped), work.pumping("layer", 1):
        pytest.fail("it began")
