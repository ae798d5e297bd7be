"""Calls that wait for their client."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import cast

import grpc
import pytest

from coco_kp.keyprovider.waiting import Waiting
from tests.support.patience import PATIENCE, wait_until


class Call:
    """A call as grpcio hands it over, and its requests."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.sent = threading.Event()
        self.taken: list[Callable[[], None]] = []
        self.over = False

    def __next__(self) -> bytes:
        self.sent.wait(PATIENCE)
        if self.cancelled.is_set():
            raise grpc.RpcError
        return b"request"

    def __iter__(self) -> Iterator[bytes]:
        return self

    def cancel(self) -> None:
        self.cancelled.set()
        self.sent.set()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if not self.over:
            self.taken.append(callback)
        return not self.over

    def peer(self) -> str:
        return "ipv4:192.0.2.1:50000"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def made(self, waiting: Waiting) -> threading.Thread:
        """Make the call, and wait until it waits."""
        handler = waiting.handler(lambda request, _: request)
        thread = threading.Thread(target=self._made, args=(handler.stream_unary,))
        thread.start()
        context = cast("grpc.ServicerContext", self)
        wait_until(lambda: context in waiting._since or not thread.is_alive())
        return thread

    def _made(self, behavior: Callable[..., bytes]) -> None:
        try:
            assert behavior(self, self) == b"request"
        except grpc.RpcError:
            assert self.cancelled.is_set()


class Clock:
    """A clock that stands until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_call_that_waits_longest_ends_where_one_more_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "coco_kp")
    waiting, calls = Waiting(most=2), [Call() for _ in range(4)]
    threads = [call.made(waiting) for call in calls]
    for call, thread in zip(calls[2:], threads[2:], strict=True):
        call.sent.set()
        thread.join()
    for thread in threads[:2]:
        thread.join()
    assert [call.cancelled.is_set() for call in calls] == [True, True, False, False]
    assert [record.message for record in caplog.records] == ["stalled", "stalled"]
    assert vars(caplog.records[0])["fields"] == {"client": "ip:192.0.2.1"}


def test_call_waits_for_its_request_no_longer_than_that() -> None:
    clock = Clock()
    waiting, early, late = Waiting(longest=10, clock=clock), Call(), Call()
    threads = [early.made(waiting)]
    clock.now += 6
    threads.append(late.made(waiting))
    clock.now += 4
    waiting.look()
    assert (early.cancelled.is_set(), late.cancelled.is_set()) == (True, False)
    late.sent.set()
    for thread in threads:
        thread.join()


def test_answer_waits_to_be_taken_no_longer_than_that() -> None:
    clock = Clock()
    waiting, taken, left = Waiting(longest=10, clock=clock), Call(), Call()
    for call in (taken, left):
        call.sent.set()
        call.made(waiting).join()
    (done,) = taken.taken
    done()
    clock.now += 10
    waiting.look()
    assert (taken.cancelled.is_set(), left.cancelled.is_set()) == (False, True)


def test_call_at_work_does_not_wait() -> None:
    clock = Clock()
    waiting, call = Waiting(longest=10, clock=clock), Call()
    call.sent.set()
    working, go_on = threading.Event(), threading.Event()

    def work(request: bytes, _: grpc.ServicerContext) -> bytes:
        working.set()
        go_on.wait(PATIENCE)
        return request

    behavior = waiting.handler(work).stream_unary
    thread = threading.Thread(target=behavior, args=(call, call))
    thread.start()
    assert working.wait(PATIENCE)
    clock.now += 1000
    waiting.look()
    go_on.set()
    thread.join()
    assert not call.cancelled.is_set()


def test_call_that_ended_at_work_waits_for_nobody() -> None:
    waiting, call = Waiting(), Call()
    call.over = True
    call.sent.set()
    call.made(waiting).join()
    assert not waiting._since
