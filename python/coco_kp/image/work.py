"""Pieces of work on an image side by side: the first that fails stops the others."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Final

from coco_kp.crypto import PumpProgress
from coco_kp.deadline import Alarm
from coco_kp.errors import CancelledError, CocoKpError
from coco_kp.image.cancellation import check_wanted
from coco_kp.image.progress import Progress
from coco_kp.model.reference import ImageReference, RegistryReference
from coco_kp.processors import processors
from coco_kp.transport.access import Access
from coco_kp.unpacking import Unpacking

TRANSFERS: Final = 6
"""Layers on their way to or from a registry at a time, as skopeo has them: each waits for answers,
and while it does another has the processor, or the line."""

_TICK: Final = 0.1  # seconds between two looks at what pumps did


class Stopped(Exception):  # noqa: N818 (no error: the reason is told elsewhere)
    """The work on one layer ended early, because another one failed or the user wants it."""


class Work:
    """Several pieces of work side by side, of which the first that fails stops the others.

    ``jobs`` go on at once: by default one a processor, and not fewer than `TRANSFERS` where one of
    ``places``, between which the layers move, is a registry.
    """

    def __init__(
        self,
        progress: Progress,
        jobs: int | None = None,
        access: Access | None = None,
        places: Iterable[ImageReference] = (),
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"{jobs} jobs are too few")
        self.progress = progress
        self.unpacking = Unpacking((access or Access()).max_unpacked)
        remote = any(isinstance(place, RegistryReference) for place in places)
        self._busy = processors() if jobs is None else jobs
        self.jobs = jobs or max(self._busy, TRANSFERS if remote else 1)
        self._lock = threading.Lock()
        self._stopped = False
        self._raised: list[Exception] = []  # by the user's progress
        self._pumps: dict[PumpProgress, _Pump] = {}

    def threads_for(self, layers: int) -> int:
        """Return how many threads each of so many layers gets: 2 where there are some to spare."""
        return 2 if 2 * layers <= self._busy else 1

    def check(self) -> None:
        """Raise ``Stopped``, or ``CancelledError``, if this work is no longer wanted."""
        check_wanted()
        if self._stopped:
            raise Stopped

    def is_fault(self, error: CocoKpError) -> bool:
        """Return whether something is wrong with what was read, and not merely the work to end."""
        return not isinstance(error, CancelledError) and not any(
            error is raised for raised in self._raised
        )

    def begin(self, name: str, size: int) -> None:
        """Have progress told that the work on something of ``size`` bytes begins."""
        with self._telling():
            self.progress.begin(name, size)

    def advance(self, name: str, count: int) -> None:
        """Have it told that ``count`` more bytes of it were moved."""
        with self._telling():
            self.progress.advance(name, count)

    def end(self, name: str) -> None:
        """Have it told that it is done."""
        with self._telling():
            self.progress.end(name)

    def run(self, pieces: Iterable[Callable[[], object]]) -> None:
        """Do all pieces, as many at once as there are jobs; raise what the first failure raised.

        Whatever happens, none is running any more when this returns. Where the system gives fewer
        threads than there are jobs, as under a limit on processes, those do, or this one alone.
        Deadlines hold in all of them.
        """
        left = deque(pieces)

        def work_off() -> None:
            while True:
                try:
                    piece = left.popleft()
                except IndexError:
                    return
                piece()

        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                pending = set[Future[None]]()
                with suppress(RuntimeError):  # no further thread is to be had
                    for _ in range(min(self.jobs, len(left))):
                        pending.add(pool.submit(partial(copy_context().run, work_off)))
                if not pending:
                    self._alone(work_off)
                while pending:
                    done, pending = wait(pending, _TICK, FIRST_EXCEPTION)
                    self._tell()
                    check_wanted()
                    for future in done:
                        future.result()
            except BaseException:  # a signal in this thread, too
                left.clear()
                self._stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    @contextmanager
    def pumping(self, name: str, size: int) -> Iterator[PumpProgress]:
        """Yield what a native pump reports to, and is stopped by, while the block runs."""
        pump = _Pump(name, PumpProgress())
        self.check()
        self.begin(name, size)
        with self._lock:
            self._pumps[pump.progress] = pump
        try:
            self.check()  # nobody found the pump until now
            with self._ending_early():
                yield pump.progress
        finally:
            with self._lock:
                del self._pumps[pump.progress]
            self._advance(pump)
        self.end(name)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Note what a user's progress raises, which is no fault of any image."""
        try:
            yield
        except Exception as error:
            self._raised.append(error)
            raise

    @contextmanager
    def _ending_early(self) -> Iterator[None]:
        """Raise why a pump was cancelled: nothing of it is wanted, or another piece failed."""
        try:
            yield
        except CancelledError:
            check_wanted()
            if self._stopped:
                raise Stopped from None
            raise

    def _alone(self, work_off: Callable[[], None]) -> None:
        """Do all in this thread, where nobody looks whether it is still wanted."""
        with Alarm(math.inf, self._cancel_pumps):
            work_off()

    def _cancel_pumps(self) -> None:
        for pump in tuple(self._pumps):
            pump.cancel()

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._cancel_pumps()

    def _tell(self) -> None:
        with self._lock:
            for pump in self._pumps.values():
                self._advance(pump)

    def _advance(self, pump: _Pump) -> None:
        done = pump.progress.done
        self.advance(pump.name, done - pump.told)
        pump.told = done


class _Pump:
    """A native pump on its way, and how many bytes of it were told."""

    def __init__(self, name: str, progress: PumpProgress) -> None:
        self.name, self.progress, self.told = name, progress, 0
