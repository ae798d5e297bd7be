"""A plan, or a shard of it: several images at once, by threads of this process or another engine.

All lines are read before the first image is touched, so that a plan is right as a whole or not run.
They are not kept: a line is read again when its turn comes, so that a plan may be of any length.
"""

from __future__ import annotations

import dataclasses
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from coco_kp.errors import CancelledError, InputError
from coco_kp.files import close, open_regular
from coco_kp.fleet.destinations import Destinations
from coco_kp.fleet.hosts import check_one_registry
from coco_kp.fleet.keys import KeyRing
from coco_kp.fleet.lines import MAX_LINE, PlanLine, ResultLine, parse_plan_line
from coco_kp.fleet.work import Reach, Worker
from coco_kp.redact import shown
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``number`` (from 0) of so many: lines that stand together, for they share layers."""

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        """Refuse a part that there is not."""
        if not 0 <= self.number < self.count:
            raise InputError(
                f"there is no shard {self.number} of {self.count}",
                f"shards are 0 to {max(0, self.count - 1)}",
            )

    def of(self, count: int) -> range:
        """Return which of so many lines are its own."""
        return range(self.number * count // self.count, (self.number + 1) * count // self.count)


class PlanFile:
    """An open plan, of which lines are read when they are needed."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path
        self._ends = array("Q")
        self._digests = bytearray()
        self._find_lines()

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self._ends)

    def line(self, number: int) -> PlanLine:
        """Read a line, by its number from 0. Raises ``InputError``."""
        return parse_plan_line(self.text(number), f"line {number + 1} of {shown(str(self._path))}")

    def text(self, number: int) -> bytes:
        """Return a line as it stands there, by its number from 0.

        Raises ``InputError`` where it stands there no longer.
        """
        start = self._ends[number - 1] if number else 0
        text = os.pread(self._descriptor, self._ends[number] - start, start)
        if sha256(text).digest() != self._digests[32 * number : 32 * (number + 1)]:
            raise InputError(f"{shown(str(self._path))} was changed while it was run")
        return text

    def _find_lines(self) -> None:
        end = 0
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            while text := file.readline(MAX_LINE + 1):
                end += len(text)
                self._ends.append(end)
                self._digests += sha256(text).digest()


@contextmanager
def open_plan(path: Path) -> Iterator[PlanFile]:
    """Open a plan. Raises ``InputError`` for what is no file, or cannot be read."""
    descriptor = open_regular(path)
    try:
        yield PlanFile(descriptor, path)
    finally:
        close(descriptor)


@dataclasses.dataclass(slots=True)
class _Waiting:
    """Lines whose turn has not come: those whose layers are first to be made by others."""

    needs: dict[int, int] = dataclasses.field(default_factory=dict)
    wanted_by: dict[int, list[int]] = dataclasses.field(default_factory=dict)

    def add(self, number: int, needed: set[int]) -> None:
        self.needs[number] = len(needed)
        for other in needed:
            self.wanted_by.setdefault(other, []).append(number)

    def ended(self, number: int) -> list[int]:
        """Return the lines whose turn has come now that a line has ended, well or not."""
        free = []
        for other in self.wanted_by.pop(number, []):
            self.needs[other] -= 1
            if not self.needs[other]:
                del self.needs[other]
                free.append(other)
        return free


class Engine(Protocol):
    """Who does lines, ``jobs`` of them at once."""

    @property
    def jobs(self) -> int:
        """How many lines may be submitted and not ended."""

    def submit(self, line: PlanLine) -> Future[ResultLine]:
        """Have a line done."""

    def end(self) -> None:
        """Begin nothing more; have what goes on end where that can be, and wait for it then."""


class Threads:
    """The engine of this process. Threads do lines until the worker's ``halt`` is asked for."""

    def __init__(self, worker: Worker, ring: KeyRing, jobs: int) -> None:
        self.jobs = jobs
        self._worker = worker
        self._ring = ring
        self._pool = ThreadPoolExecutor(jobs)

    def submit(self, line: PlanLine) -> Future[ResultLine]:
        """Have a thread do a line."""
        return self._pool.submit(self._worker.run, line, self._ring.of(line))

    def end(self) -> None:
        """Halt the worker, and wait for its threads."""
        self._worker.halt.ask()
        self._pool.shutdown(wait=True, cancel_futures=True)


def run_plan(
    plan: PlanFile,
    shard: Shard,
    ring: KeyRing,
    reach: Reach,
    engine: Engine,
    tell: Callable[[int, ResultLine], None],
) -> None:
    """Have an engine run the shard's lines, and ``tell`` each one's number and result as it ends.

    A line whose layers are to be taken over from others of the shard waits for them. Raises
    ``CocoKpError`` for a plan or a key, before any image is touched. Whatever ends it early, such
    as ``KeyboardInterrupt``: the engine has ended when this returns, and what was done was told.
    """
    ready, waiting = _prepared(plan, shard, ring, reach)
    pending: dict[Future[ResultLine], int] = {}

    def told(futures: set[Future[ResultLine]]) -> None:
        for future in futures:
            number = pending.pop(future)
            tell(number, future.result())
            ready.extend(waiting.ended(number))

    try:
        while ready or pending:
            while ready and len(pending) < engine.jobs:
                number = ready.popleft()
                pending[engine.submit(plan.line(number))] = number
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            told(done)
    except BaseException:
        engine.end()
        told({future for future in pending if _was_done(future)})
        raise
    engine.end()


def _was_done(future: Future[ResultLine]) -> bool:
    """Return whether a line's work came to a result before all was ended."""
    return (
        future.done()
        and not future.cancelled()
        and not isinstance(future.exception(), CancelledError)
    )


def _prepared(
    plan: PlanFile, shard: Shard, ring: KeyRing, reach: Reach
) -> tuple[deque[int], _Waiting]:
    """Read all lines, and have the shard's keys asked for; return whose turn it is."""
    mine = shard.of(len(plan))
    sources, targets, destinations = set[str](), set[str](), Destinations()
    ready, waiting = deque[int](), _Waiting()
    makers: dict[str, int] = {}
    for number in range(len(plan)):
        line = plan.line(number)
        destinations.add(line)
        sources.add(line.source.host)
        targets |= {line.destination.host} if line.destination else set()
        if number not in mine:
            continue
        ring.of(line)
        needed = {makers[name] for name in map(str, line.reuse) if name in makers}
        if needed:
            waiting.add(number, needed)
        else:
            ready.append(number)
        if line.destination:
            makers[str(line.destination)] = number
    destinations.check()
    check_one_registry(sources, reach.source)
    check_one_registry(targets, reach.destination)
    return ready, waiting
