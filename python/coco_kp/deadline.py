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
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

_LOOK: Final = 0.05  # seconds after which one who waits for a lock sees that his caller has gone


class Caller:
    """Who waits for an answer, and may go without it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gone = False
        self._alarms: set[Alarm] = set()

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more."""
        return self._gone

    def leave(self) -> None:
        """Wait no more: what is asked of others for this caller ends."""
        with self._lock:
            self._gone = True
            alarms, self._alarms = self._alarms, set()
        for alarm in alarms:
            alarm.ring()

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


@dataclass(frozen=True, slots=True)
class _Scope:
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


def acquire(lock: threading.Lock | threading.BoundedSemaphore) -> bool:
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

    ``wake`` must not wait for anything. To be turned off by whoever set it. Raises ``OSError`` as
    `start` does.
    """

    def __init__(self, seconds: float, wake: Callable[[], object]) -> None:
        self._waking = threading.Lock()
        self._caller = _scope.get().caller
        self._timer: threading.Timer | None = None
        left = remaining(seconds)
        endless = left == math.inf and not self._caller
        self._wake: Callable[[], object] | None = None if endless else wake
        if left < math.inf:
            self._timer = threading.Timer(left, self.ring)
            self._timer.daemon = True
            start(self._timer)
        if self._caller and not self._caller.add(self):
            self.ring()

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
        if self._timer:
            self._timer.cancel()
        if self._caller:
            self._caller.discard(self)
