"""Lines of a plan on a Dask cluster: a task an image, done by workers that have coco-kp themselves.

A task is a line of the plan and how registries are reached: no key and no credentials are in it,
workers have their own. Dask starts a task again whose worker died: at least once is enough, for an
image that is done is left alone. Whoever reaches the scheduler runs what he likes on its workers.

A worker closes none of its key rings, which ``KeyRing`` else asks for: tasks may use the keys of
one that has left the cache. Its connections stay open until the collector comes or the process
ends.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

from coco_kp.errors import CocoKpError, InputError, RemoteError
from coco_kp.fleet.halt import Halt
from coco_kp.fleet.keys import Fingerprints, KeyRing, LineKeys
from coco_kp.fleet.lines import PlanLine, ResultLine, parse_plan_line, parse_result_line
from coco_kp.fleet.work import Reach, Worker, failed
from coco_kp.processors import processors
from coco_kp.redact import shown
from coco_kp.transport import Access
from coco_kp.transport.registry.session import Session

_CONNECT: Final = 30  # seconds
_AHEAD: Final = 2  # tasks for each thread of a worker, so that none waits for the next
_TURN: Final = threading.Lock()  # a key ring is for one thread at a time


class DaskEngine:
    """Has a cluster do lines; ``source`` and ``destination`` hold no credentials.

    Raises ``RemoteError`` where no scheduler answers, ``InputError`` without the extra.
    """

    def __init__(self, address: str, source: Access, destination: Access, ring: KeyRing) -> None:
        assert not source.credentials and not destination.credentials  # noqa: S101, PT018
        try:
            from distributed import Client  # noqa: PLC0415 (an extra)
        except ImportError:
            raise InputError(
                "Dask needs the Python package distributed",
                "install it with: pip install 'coco-kp[fleet]'",
            ) from None
        self._address = address
        with self._answering():
            self._client = Client(address, timeout=_CONNECT, set_as_default=False)
        self._executor = self._client.get_executor()
        self._access = source, destination
        self._ring = ring
        self._ended = False

    @property
    def jobs(self) -> int:
        """How many lines the cluster is given at once; workers come and go."""
        with self._answering():
            return max(1, _AHEAD * sum(map(int, self._client.nthreads().values())))

    def submit(self, line: PlanLine) -> Future[ResultLine]:
        """Have a line done. Who sends one twice at a time gets one result."""
        task = (line.to_json(), *self._access, self._ring.fingerprints(line))
        key = f"coco-kp-fleet-{hashlib.sha256(repr(task).encode()).hexdigest()}"
        told: Future[ResultLine] = Future()

        def tell(done: Future[str]) -> None:
            if not (self._ended and told.cancel()):
                told.set_result(_result(line, done))

        with self._answering():
            self._executor.submit(do_line, *task, key=key).add_done_callback(tell)
        return told

    def end(self) -> None:
        """Take back what no worker has begun; what one has begun ends where it runs."""
        self._ended = True
        self._executor.shutdown(wait=False)
        self._client.close()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each version of Dask has its own
            raise RemoteError(
                f"no Dask scheduler answers at {shown(self._address)}: {type(error).__name__}",
                "what is done stays done: run the plan again",
            ) from error


def do_line(text: str, source: Access, destination: Access, fingerprints: Fingerprints) -> str:
    """Do a line of a plan on this worker, and return the line of its result."""
    line = parse_plan_line(text.encode())
    try:
        keys = _keys(line, fingerprints)
        return _worker(source, destination).run(line, keys).to_json()
    except CocoKpError as error:
        return failed(line, error).to_json()


def _result(line: PlanLine, done: Future[str]) -> ResultLine:
    try:
        result = parse_result_line(done.result().encode(), "a worker's result")
    except CocoKpError as error:
        return failed(line, error)
    except BaseException as error:  # noqa: BLE001 (whatever its worker died of, or lacks)
        what = f"no worker of the cluster did it: {type(error).__name__}"
        return failed(line, RemoteError(what, "the logs of Dask's workers say why"))
    if result.line != line:
        return failed(line, InputError("a worker's result is that of another line"))
    return result


def _keys(line: PlanLine, fingerprints: Fingerprints) -> LineKeys:
    with _TURN:
        try:
            return _ring(fingerprints).of(line, fingerprints)
        except CocoKpError:
            _ring.cache_clear()  # the next line's keys are asked for anew
            raise


@lru_cache(maxsize=32)
def _ring(_fingerprints: Fingerprints) -> KeyRing:
    return KeyRing(logging.getLogger(__name__).warning)


@lru_cache(maxsize=8)
def _worker(source: Access, destination: Access) -> Worker:
    """Return what all tasks of this process share."""
    from distributed import get_worker  # noqa: PLC0415 (an extra)

    halt, warn = Halt(), logging.getLogger(__name__).warning
    at_once = max(1, processors() // get_worker().state.nthreads)
    return Worker(Reach(Session(sleep=halt.sleep), source, destination), halt, at_once, warn)
