"""How long a call may take: a scope, whoever waits in it, and a caller who goes."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from coco_kp import deadline
from coco_kp.deadline import (
    Alarm,
    Caller,
    acquire,
    caller_has_gone,
    keep_caller,
    pause,
    remaining,
    undoing,
    within,
)
from tests.support.patience import PATIENCE, ends, wait_until


def test_time_without_deadline_is_endless() -> None:
    assert remaining() == math.inf
    assert remaining(5) == 5


@pytest.mark.parametrize(("outer", "inner"), [(1000.0, 2000.0), (2000.0, 1000.0)])
def test_of_two_deadlines_the_earlier_counts(outer: float, inner: float) -> None:
    with within(outer):
        with within(inner):
            assert 1000 - PATIENCE < remaining() <= 1000
        assert outer - PATIENCE < remaining() <= outer
    assert remaining() == math.inf


def test_time_that_is_over_is_zero() -> None:
    with within(-1):
        assert remaining() == 0


def test_caller_who_goes_leaves_no_time() -> None:
    caller = Caller()
    with within(1000, caller), within(500):
        assert remaining() > 0
        caller.leave()
        assert remaining() == 0
        assert caller_has_gone()
    assert not caller_has_gone()


def test_caller_who_stays_cannot_go_any_more() -> None:
    caller, woken = Caller(), threading.Event()
    with within(1000, caller):
        alarm = Alarm(math.inf, woken.set)
        assert keep_caller()
        caller.leave()
        assert not caller_has_gone()
        assert remaining() > 0
        assert keep_caller()
    assert not woken.is_set()
    alarm.off()


def test_caller_who_has_gone_does_not_stay() -> None:
    caller = Caller()
    caller.leave()
    with within(1000, caller):
        assert not keep_caller()
        assert caller_has_gone()
    assert keep_caller()  # nobody who could go


def test_undoing_has_time_of_its_own() -> None:
    caller = Caller()
    with within(-1, caller):
        caller.leave()
        with undoing(1000):
            assert not caller_has_gone()
            assert 0 < remaining() <= 1000
        assert remaining() == 0


def test_alarm_wakes_when_caller_goes() -> None:
    caller, woken = Caller(), threading.Event()
    with within(1000, caller):
        alarm = Alarm(math.inf, woken.set)
    caller.leave()
    assert woken.is_set()
    alarm.off()


def test_alarm_for_caller_who_has_gone_wakes_at_once() -> None:
    caller, woken = Caller(), threading.Event()
    caller.leave()
    with within(1000, caller):
        Alarm(math.inf, woken.set)
    assert woken.is_set()


def test_alarm_wakes_at_deadline() -> None:
    woken = threading.Event()
    with within(0.01):
        Alarm(math.inf, woken.set)
    assert woken.wait(PATIENCE)


def test_alarm_that_is_off_wakes_nobody() -> None:
    caller, woken = Caller(), threading.Event()
    with within(1000, caller):
        Alarm(1000, woken.set).off()
    caller.leave()
    assert not woken.is_set()


def test_alarms_ring_in_order_of_their_time_on_one_thread() -> None:
    rung: list[tuple[int, str]] = []
    over = threading.Event()

    def ring(number: int) -> None:
        rung.append((number, threading.current_thread().name))
        if len(rung) == 3:
            over.set()

    with deadline._clock._changed:  # whose thread may be slow to start
        for number in (3, 1, 2):
            Alarm(number / 100, partial(ring, number))
    with ends():
        assert over.wait(PATIENCE)
    assert rung == [(number, "alarms") for number in (1, 2, 3)]


def test_alarm_that_is_due_before_the_one_waited_for_rings_first() -> None:
    clock, woken = deadline._Clock(), threading.Event()
    late = Alarm(1000.0, lambda: None, clock)
    wait_until(lambda: clock._asleep_until < math.inf)
    Alarm(0.01, woken.set, clock)
    assert woken.wait(PATIENCE)
    late.off()


def test_clock_without_alarms_has_no_thread() -> None:
    clock, woken = deadline._Clock(), threading.Event()
    Alarm(0.01, lambda: None, clock).off()
    Alarm(0.02, woken.set, clock)
    thread = clock._thread
    assert thread is not None
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert woken.is_set()


def test_clock_whose_thread_a_fork_left_behind_starts_another() -> None:
    clock, woken = deadline._Clock(), threading.Event()
    clock._thread = threading.Thread()  # one that does not run
    Alarm(0.0, woken.set, clock)
    assert woken.wait(PATIENCE)


def test_alarm_without_thread_is_an_error_and_never_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    clock, woken, later = deadline._Clock(), threading.Event(), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="gives no further thread"):
            Alarm(0.0, woken.set, clock)
    Alarm(0.01, later.set, clock)
    assert later.wait(PATIENCE)
    assert not woken.is_set()


@pytest.mark.parametrize(
    "wait",
    [lambda: pause(1000), lambda: acquire(threading.BoundedSemaphore(1)) and acquire(taken())],
    ids=["pause", "acquire"],
)
def test_wait_ends_when_caller_goes(wait: Callable[[], object]) -> None:
    caller, waiting = Caller(), threading.Event()

    def run() -> None:
        with within(1000, caller):
            waiting.set()
            wait()

    thread = threading.Thread(target=run)
    thread.start()
    waiting.wait()
    caller.leave()
    with ends():
        thread.join(PATIENCE)
    assert not thread.is_alive()


def test_lock_that_is_taken_is_given_up_at_deadline() -> None:
    with ends(), within(0.1):
        assert not acquire(taken())


def taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def test_pause_lasts_as_long_as_asked() -> None:
    with ends(after=0.2):
        pause(0.2)


_FORK: Final = """
import os, signal, threading, time
from coco_kp import deadline
from coco_kp.deadline import Alarm

def asleep():
    while not deadline._clock._changed._waiters:
        time.sleep(0.001)

kept = Alarm(600, lambda: None)
asleep()
if os.fork() == 0:
    signal.alarm(60)
    later = Alarm(500, lambda: None)
    while len(deadline._clock._changed._waiters) < 2:
        time.sleep(0.001)
    rung = threading.Event()
    Alarm(0.01, rung.set)
    rung.wait()
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_alarm_rings_in_a_fork_of_a_process_whose_alarms_were_waited_for() -> None:
    """The thread that was woken was the parent's: the fork paused for ever."""
    assert subprocess.run([sys.executable, "-c", _FORK], check=False).returncode == 0
