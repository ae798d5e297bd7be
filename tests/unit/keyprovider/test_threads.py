"""Threads for calls: as many as are needed, and no longer than that."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from coco_kp.keyprovider.threads import Threads
from tests.support.patience import PATIENCE, wait_until


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    """What keeps calls waiting; they end with the test."""
    event = threading.Event()
    yield event
    event.set()


def test_thread_gives_result_or_error_of_its_call() -> None:
    threads = Threads(idle=0.01)
    assert threads.submit(pow, 2, 5, mod=7).result(PATIENCE) == 4
    error = threads.submit(int, "x").exception(PATIENCE)
    assert isinstance(error, ValueError)


def test_calls_run_at_the_same_time_however_many_there_are() -> None:
    threads, all_there = Threads(idle=0.01), threading.Barrier(100)
    calls = [threads.submit(all_there.wait, PATIENCE) for _ in range(100)]
    assert sorted(call.result(PATIENCE) for call in calls) == list(range(100))


def test_idle_threads_end() -> None:
    """A server that had 101 calls at once kept 101 threads for good."""
    rested = threading.Event()
    threads, all_there = Threads(rested.set, idle=0.05), threading.Barrier(20)
    before = threading.active_count()
    calls = [threads.submit(all_there.wait, PATIENCE) for _ in range(20)]
    assert all(call.exception(PATIENCE) is None for call in calls)
    assert rested.wait(PATIENCE)
    wait_until(lambda: threading.active_count() <= before)
    assert threads.submit(threading.get_ident).result(PATIENCE)  # others are made


def test_calls_for_which_there_is_no_thread_wait_for_one(
    go_on: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in ``submit`` ends the thread in which grpcio takes calls: none was answered any
    more, while the process lived."""
    rested = threading.Event()
    threads = Threads(rested.set, idle=0.01)
    running = threads.submit(go_on.wait, PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        waiting = [threads.submit(pow, 2, number) for number in range(3)]
        assert threads.busy == 4
        go_on.set()
        assert [call.result(PATIENCE) for call in waiting] == [1, 2, 4]
        assert running.result(PATIENCE)
        assert rested.wait(PATIENCE)
        alone = threads.submit(pow, 2, 3)  # there is not even one
    threads.submit(pow, 2, 4).result(PATIENCE)
    assert alone.result(PATIENCE) == 8


def no_thread(_thread: threading.Thread) -> None:
    """As Python does at a limit on processes, or in a full container."""
    raise RuntimeError("can't start new thread")


def test_thread_that_was_used_last_is_woken_first() -> None:
    """In turn, all of them would stay in use under the least load."""
    threads, all_there = Threads(idle=PATIENCE), threading.Barrier(10)
    for call in [threads.submit(all_there.wait, PATIENCE) for _ in range(10)]:
        call.result(PATIENCE)
    used = set()
    for _ in range(50):
        wait_until(lambda: not threads.busy)
        used.add(threads.submit(threading.get_ident).result(PATIENCE))
    assert len(used) == 1


def test_held_calls_wait_and_running_ones_end(go_on: threading.Event) -> None:
    threads = Threads(idle=0.01)
    begun = threading.Event()

    def run() -> bool:
        begun.set()
        return go_on.wait(PATIENCE)

    running = threads.submit(run)
    assert begun.wait(PATIENCE)
    threads.hold()
    held = threads.submit(threading.get_ident)
    go_on.set()
    assert running.result(PATIENCE)
    assert not held.done()
    wait_until(lambda: threads.busy == 1)
    threads.go_on()
    assert held.result(PATIENCE)


def test_calls_that_come_as_threads_end_are_all_made() -> None:
    threads = Threads(idle=0.0)
    calls = [threads.submit(pow, number, 2) for number in range(2000)]
    assert [call.result(PATIENCE) for call in calls] == [number**2 for number in range(2000)]
    wait_until(lambda: not threads.busy)
