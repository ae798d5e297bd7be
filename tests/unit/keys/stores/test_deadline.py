from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from coco_kp.deadline import Caller, within
from coco_kp.errors import KekError, UnreachableError
from coco_kp.keys.stores.deadline import in_time
from tests.support.abandoned import await_abandoned


def test_call_in_time_returns_its_result_or_raises_its_error() -> None:
    assert in_time(lambda: 5, "it") == 5

    def fails() -> None:
        raise KekError("no")

    with pytest.raises(KekError, match="no"):
        in_time(fails, "it")


def test_timeout_of_call_itself_passes() -> None:
    def fails() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        in_time(fails, "it")


def test_call_that_hangs_is_given_up() -> None:
    over = threading.Event()
    with pytest.raises(UnreachableError) as error:
        in_time(over.wait, "the HSM did not answer", seconds=0.1)
    over.set()
    assert error.value.message == "the HSM did not answer: no answer in time"


def test_call_is_given_up_when_nobody_waits_for_it_any_more() -> None:
    over, caller = threading.Event(), Caller()
    with within(1000, caller), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(copy_context().run, in_time, over.wait, "the HSM did not answer")
        caller.leave()
        with pytest.raises(UnreachableError, match="no answer in time"):
            waiting.result()
    over.set()


def test_call_that_is_late_for_its_turn_is_never_made() -> None:
    turn, made = threading.Lock(), threading.Event()
    with turn, pytest.raises(UnreachableError):
        in_time(made.set, "the HSM did not answer", turn=turn, seconds=0.1)
    await_abandoned()
    assert not made.is_set()
