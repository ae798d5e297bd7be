"""One deadline for a call, over all that it asks of others on its way.

``with within(seconds):`` bounds what runs in it, as a cancel scope of trio's does. Whoever waits in
there asks :func:`remaining` how long, so that no function hands a moment on to the next. Scopes
nest, and the earliest end counts. A caller who goes (:class:`Caller`) ends the time at once, and
wakes whoever waits with an :class:`Alarm`.

A thread that is started in a scope is not in it: who starts one waits for it, with ``remaining``.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final, NamedTuple, Self

_LOOK: Final = 0.05  # seconds after which one who waits for a lock sees that his caller has gone


class Caller:
    """Who waits for an answer, and may go without it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gone = False
        self._staying = False
        self._alarms: set[Alarm] = set()

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more."""
        return self._gone

    def leave(self) -> None:
        """Wait no more: what is asked of others for this caller ends. No-op once he stays."""
        with self._lock:
            if self._staying:
                return
            self._gone = True
            alarms, self._alarms = self._alarms, set()
        for alarm in alarms:
            alarm.ring()

    def stay(self) -> bool:
        """Wait to the end from now on; False if he has gone."""
        with self._lock:
            self._staying = not self._gone
            return self._staying

    def add(self, alarm: Alarm) -> bool:
        """Have an alarm ring when the caller goes; False if he has gone."""
        with self._lock:
            if not self._gone:
                self._alarms.add(alarm)
            return not self._gone

    def discard(self, alarm: Alarm) -> None:
        """Forget an alarm."""
        with self._lock:
            self._alarms.discard(alarm)


class _Scope(NamedTuple):
    end: float  # of time.monotonic
    caller: Caller | None


_scope: ContextVar[_Scope] = ContextVar("deadline", default=_Scope(math.inf, None))  # noqa: B039


@contextlib.contextmanager
def within(seconds: float, caller: Caller | None = None) -> Iterator[None]:
    """Let what runs in the block take so long at the most, and not longer than ``caller`` waits."""
    outer = _scope.get()
    end = min(outer.end, time.monotonic() + seconds)
    token = _scope.set(_Scope(end, caller or outer.caller))
    try:
        yield
    finally:
        _scope.reset(token)


def remaining(most: float = math.inf) -> float:
    """Return how many seconds are left, at most ``most``; 0 when the time is over."""
    if caller_has_gone():
        return 0.0
    return max(0.0, min(most, _scope.get().end - time.monotonic()))


def caller_has_gone() -> bool:
    """Return whether nobody waits for what is done here."""
    caller = _scope.get().caller
    return caller is not None and caller.gone


def keep_caller() -> bool:
    """Have whoever waits for what is done here stay to its end; False if nobody waits any more."""
    caller = _scope.get().caller
    return caller is None or caller.stay()


@contextlib.contextmanager
def undoing(seconds: float) -> Iterator[None]:
    """Let what runs in the block take so long, even past the end: it undoes what was begun."""
    token = _scope.set(_Scope(time.monotonic() + seconds, None))
    try:
        yield
    finally:
        _scope.reset(token)


def acquire(lock: threading.Lock | threading.Semaphore) -> bool:
    """Acquire a lock while there is time; return whether that was done."""
    while not lock.acquire(timeout=min(remaining(), _LOOK)):
        if not remaining():
            return False
    return True


def pause(seconds: float) -> None:
    """Sleep, until the time is over at the most."""
    awake = threading.Event()
    try:
        alarm = Alarm(seconds, awake.set)
    except OSError:  # without a thread, and so without an eye on the caller
        time.sleep(remaining(seconds))
        return
    awake.wait()
    alarm.off()


def start(thread: threading.Thread) -> None:
    """Start a thread. Raises ``OSError``, as the system does, where there is no further one."""
    try:
        thread.start()
    except RuntimeError:
        what = "the system gives no further thread (is there a limit on processes?)"
        raise OSError(errno.EAGAIN, what) from None


class Alarm:
    """Calls ``wake`` once, in another thread: after ``seconds``, or when the time is over.

    ``wake`` must neither wait for anything nor raise. To be turned off by whoever set it; a context
    manager does so. Raises ``OSError`` as `start` does.
    """

    def __init__(
        self, seconds: float, wake: Callable[[], object], clock: _Clock | None = None
    ) -> None:
        self._waking = threading.Lock()
        self._caller = _scope.get().caller
        left = remaining(seconds)
        endless = left == math.inf and not self._caller
        self._wake: Callable[[], object] | None = None if endless else wake
        if left < math.inf:
            (clock or _clock).set(self, time.monotonic() + left)
        if self._caller and not self._caller.add(self):
            self.ring()

    @property
    def is_on(self) -> bool:
        """Whether it may still wake."""
        return self._wake is not None

    def ring(self) -> None:
        """Wake, unless that was done or turned off."""
        with self._waking:
            wake, self._wake = self._wake, None
            if wake:
                wake()

    def off(self) -> None:
        """Wake nobody from now on."""
        with self._waking:
            self._wake = None
        if self._caller:
            self._caller.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.off()


class _Clock:
    """Rings alarms when their time has come, all on one thread, which ends when there are none.

    A thread for each would cost as much as a small request.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarms: list[tuple[float, int, Alarm]] = []  # a heap
        self._numbers = itertools.count()
        self._asleep_until = math.inf
        self._thread: threading.Thread | None = None

    def set(self, alarm: Alarm, end: float) -> None:
        """Have an alarm ring at ``end``, of time.monotonic."""
        with self._changed:
            self._drop_those_off()
            # After a fork, the child has no such thread.
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="alarms", daemon=True)
                start(thread)
                self._thread = thread
            elif end < self._asleep_until:
                self._changed.notify_all()  # after a fork, the parent's thread is among them
            heapq.heappush(self._alarms, (end, next(self._numbers), alarm))

    def _run(self) -> None:
        while alarm := self._next():
            alarm.ring()

    def _next(self) -> Alarm | None:
        """Wait for the next alarm whose time has come; None where no alarm is left."""
        with self._changed:
            while True:
                self._drop_those_off()
                if not self._alarms:
                    self._thread = None
                    return None
                end, _, alarm = self._alarms[0]
                left = end - time.monotonic()
                if left <= 0:
                    heapq.heappop(self._alarms)
                    return alarm
                self._asleep_until = end
                self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def _drop_those_off(self) -> None:
        while self._alarms and not self._alarms[0][-1].is_on:
            heapq.heappop(self._alarms)


_clock = _Clock()
