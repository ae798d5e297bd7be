"""Threads for a server's calls: made when they are needed, gone when they were idle for a while.

Python's own pool keeps each thread that it ever made, and the memory that it touched. It also wakes
idle threads in turn, so that under little load all stay in use; here the last one is woken first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Final, TypeVar

from coco_kp.deadline import start

T = TypeVar("T")

IDLE: Final = 10.0
"""Seconds without work after which a thread ends."""

_Work = Callable[[], None]


class Threads(Executor):
    """Runs each call in a thread at once, however many there are: its user bounds them.

    Where the system gives no further thread, a call waits until one has ended its own.
    ``on_rest`` is called when the last thread ends. None of them keeps the process alive.
    """

    def __init__(self, on_rest: Callable[[], object] = lambda: None, idle: float = IDLE) -> None:
        self._on_rest = on_rest
        self._idle_seconds = idle
        self._lock = threading.Lock()
        self._idle: list[_Mailbox] = []
        self._waiting: deque[_Work] = deque()
        self._threads = 0
        self._open = threading.Event()
        self._open.set()

    @property
    def busy(self) -> int:
        """How many calls are at work, or held."""
        with self._lock:
            return self._threads - len(self._idle) + len(self._waiting)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401 (the interface)
        """Run a function in a thread."""
        future: Future[T] = Future()
        work = partial(_complete, future, partial(fn, *args, **kwargs))
        with self._lock:
            mailbox = self._idle.pop() if self._idle else None
            self._threads += mailbox is None
        if mailbox:
            mailbox.put(work)
            return future
        try:
            start(threading.Thread(target=self._live, args=(work,), name="call", daemon=True))
        except OSError:  # raised into gRPC, it would end the one thread that takes calls
            self._wait(work)
        return future

    def hold(self) -> None:
        """Let what is submitted from now on wait for ``go_on``; what is at work goes on."""
        self._open.clear()

    def go_on(self) -> None:
        """Let what was held begin."""
        self._open.set()

    def _wait(self, work: _Work) -> None:
        """Have the next thread that ends its call do it."""
        with self._lock:
            self._threads -= 1
            mailbox = self._idle.pop() if self._idle else None
            if mailbox is None:
                self._waiting.append(work)
        if mailbox:
            mailbox.put(work)

    def _live(self, work: _Work | None) -> None:
        mailbox = _Mailbox()
        while work:
            self._open.wait()
            work()
            work = self._rest(mailbox)
        with self._lock:
            self._threads -= 1
            last = not self._threads
        if last:
            self._on_rest()

    def _rest(self, mailbox: _Mailbox) -> _Work | None:
        """Return the next work, or None where none came in time."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._idle.append(mailbox)
        work = mailbox.take(self._idle_seconds)
        if work is None:
            with self._lock:
                if mailbox in self._idle:
                    self._idle.remove(mailbox)
                    return None
            work = mailbox.take(-1)  # somebody has just begun to put work there
        return work


class _Mailbox:
    """Where one thread finds its next work."""

    def __init__(self) -> None:
        self._full = threading.Lock()
        self._full.acquire()
        self._work: _Work | None = None

    def put(self, work: _Work) -> None:
        self._work = work
        self._full.release()

    def take(self, seconds: float) -> _Work | None:
        """Return what is put there, None if nothing is in so many seconds (-1: for ever)."""
        if not self._full.acquire(timeout=seconds):
            return None
        work, self._work = self._work, None
        return work


def _complete(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 (whoever has the future gets it)
        future.set_exception(error)
    else:
        future.set_result(result)
