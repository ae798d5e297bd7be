"""A gRPC server: bounded, with health, on TCP or a Unix socket, until a signal ends it."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn, cast

import grpc

from coco_kp.keyprovider.address import TcpAddress, UnixAddress
from coco_kp.keyprovider.channel import Bound, bind
from coco_kp.keyprovider.health import LONGEST_PROBE, Health
from coco_kp.keyprovider.health import SERVICE as HEALTH
from coco_kp.keyprovider.threads import Threads
from coco_kp.keyprovider.waiting import MOST, Behavior, Waiting
from coco_kp.observe import event, in_background
from coco_kp.values import dataclass

if TYPE_CHECKING:
    from coco_kp.keyprovider.server_tls import ServerTls

_MOST_AT_WORK: Final = 600
"""Calls of the service at work at a time, however few of them it lets through itself
(:mod:`coco_kp.service.limits`); more are refused with RESOURCE_EXHAUSTED. Health checks are not
counted, and there is always room for them."""

_MOST_CALLS: Final = _MOST_AT_WORK + MOST + 144
"""Calls at a time, whatever they do, with those that have only just come or gone. Each takes a
thread, made when it is needed."""

_MOST_STREAMS: Final = 100
"""Calls of one connection at a time, which is what HTTP/2 recommends (RFC 9113, 6.5.2): clients let
more of them wait."""

READY: Final = "/ready"
"""Behind the service's name, the health of what it needs of others; its own name's is its life."""

_GRACE: Final = 25.0  # seconds that running calls have to finish after a signal
_LAST: Final = 5.0  # seconds after that, when the process ends in any case
_ARRIVING: Final = 0.25  # seconds in which calls that are on their way arrive
_TELLING: Final = 0.05  # seconds in which clients learn that they must go elsewhere
_ANSWERING: Final = 1.0  # seconds in which the last answers leave
_LOOK: Final = 0.5  # seconds after which a signal is seen that interrupted nobody

# What a client begins and does not end, the server ends: a connection is asked to close after the
# first number of seconds (clients open another unnoticed), and its calls are cut off after both.
_LONGEST_CONNECTION: Final = 60.0
_LONGEST_CALL: Final = 120.0

_LONGEST_HANDSHAKE: Final = 10.0
"""Seconds in which a connection is through with TLS and has sent HTTP/2's settings. Each is an open
file, of which there are so many; gRPC would leave those that say nothing open for two minutes."""

_M_MMAP_THRESHOLD: Final = -3  # of glibc's malloc.h, as the next
_M_ARENA_MAX: Final = -8


@dataclass(frozen=True, slots=True)
class Service:
    """What a server offers: what answers each method, from bytes to bytes."""

    name: str
    methods: Mapping[str, Behavior]
    most_bytes: int
    """Bytes of a request at the most; longer ones are refused with RESOURCE_EXHAUSTED."""


def _nothing() -> None:
    pass


def _yes() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Moments:
    """What a server's owner does at moments of its life, always in the main thread."""

    ready: Callable[[str], None]
    """Once calls are accepted, with the address as clients' configuration takes it."""
    can_serve: Callable[[], bool] = _yes
    """Every half second: whether calls can be answered now, for the health of ``<name>/ready``."""
    reload: Callable[[], None] | None = None
    """After SIGHUP, which ends the process where there is nothing to do."""
    stopping: Callable[[], None] = _nothing
    """When no more calls are accepted."""


def serve(
    service: Service,
    address: TcpAddress | UnixAddress,
    moments: Moments,
    tls: ServerTls | None = None,
    health_address: TcpAddress | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the running calls and return, in half a minute.

    With ``tls`` it speaks TLS. At ``health_address`` it answers for its health alone, and
    without TLS, which Kubernetes' probes do not know. Must be called in the main thread. Raises
    ``RemoteError`` or ``InputError`` if nobody can listen at an address.
    """
    stop, reload = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    if moments.reload:
        signal.signal(signal.SIGHUP, lambda _number, _frame: reload.set())
    _return_large_buffers()
    statuses, waiting, threads = Health(), Waiting(), Threads(_return_memory)
    with in_background(), _answering_probes(statuses, health_address, waiting):
        server = new_server(service, threads, statuses, waiting)
        bound = bind(server, address, tls.credentials() if tls else None)
        try:
            server.start()
            moments.ready(bound.address)
            # A signal that reaches another thread, or this one just before it waits, wakes nobody:
            # its handler runs when this thread looks again.
            while not stop.wait(_LOOK):
                if tls:
                    tls.look()
                if moments.reload and reload.is_set():
                    reload.clear()
                    moments.reload()
                waiting.look()
                statuses.set(f"{service.name}{READY}", serving=moments.can_serve())
        except BaseException:
            bound.leave()
            raise
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave_now)
        # Whatever hangs then, in whatever library, this does not: the kernel ends the process.
        signal.alarm(round(_GRACE + _LAST))
        moments.stopping()
        statuses.end()
        _end(server, threads, bound, waiting)
    signal.alarm(0)


def _end(server: grpc.Server, threads: Threads, bound: Bound, waiting: Waiting) -> None:
    """Answer all that came, and see that nothing else comes.

    gRPC cuts off (CANCELLED) what has arrived and was not yet handed to Python when it is told to
    stop, some fifty calls of a busy server. So calls are held for a moment first: their clients
    wait, and send no others, until all of them are here; and are answered once all know that the
    server goes.
    """
    threads.hold()
    time.sleep(_ARRIVING)
    bound.leave()
    ended = server.stop(_GRACE)
    time.sleep(_TELLING)
    threads.go_on()
    while threads.busy and not ended.wait(_TELLING):
        waiting.look()
    if not ended.wait(_ANSWERING):
        server.stop(None)  # whoever does not take his answer would go on to do so


def new_server(
    service: Service,
    pool: Executor,
    statuses: Health | None = None,
    waiting: Waiting | None = None,
) -> grpc.Server:
    """Make the server; it is not bound and not started.

    ``statuses`` says how it is: it lives, and is not yet known to be ready. ``waiting`` is to be
    looked after by the caller.
    """
    statuses, waiting = statuses or Health(), waiting or Waiting()
    places = threading.BoundedSemaphore(_MOST_AT_WORK)
    methods = {
        name: waiting.handler(partial(_in_place, places, behavior))
        for name, behavior in service.methods.items()
    }
    server = _server(pool, service.most_bytes, statuses, waiting)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, methods),))
    for name in ("", service.name):
        statuses.set(name, serving=True)
    statuses.set(f"{service.name}{READY}", serving=False)
    return server


def _in_place(
    places: threading.BoundedSemaphore,
    behavior: Behavior,
    request: bytes,
    context: grpc.ServicerContext,
) -> bytes:
    if not places.acquire(blocking=False):
        text = f"{_MOST_AT_WORK} calls are at work here (hint: call again in a minute)"
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
    try:
        return behavior(request, context)
    finally:
        places.release()


@contextmanager
def _answering_probes(
    statuses: Health, address: TcpAddress | None, waiting: Waiting
) -> Iterator[None]:
    """Answer who asks for the health alone, while the block runs, if there is an address for it."""
    if address is None:
        yield
        return
    server = _server(Threads(), LONGEST_PROBE, statuses, waiting)
    bound = bind(server, address)
    server.start()
    event(logging.INFO, "health", address=bound.address)
    try:
        yield
    finally:
        server.stop(None).wait()


def _server(pool: Executor, most_bytes: int, statuses: Health, waiting: Waiting) -> grpc.Server:
    """Make a server that offers its health."""
    server = grpc.server(
        cast("ThreadPoolExecutor", pool),  # of which it calls ``submit`` alone
        options=_options(most_bytes),
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    check = {"Check": waiting.handler(statuses.check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(HEALTH, check),))
    return server


def _options(most_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # or a second server would share the port unnoticed
        ("grpc.max_receive_message_length", most_bytes),
        ("grpc.max_concurrent_streams", _MOST_STREAMS),
        # Else those that have ended count until they are cleared away, and REFUSED_STREAM is the
        # answer to clients that keep to the limit.
        ("grpc.http.overload_protection", 0),
        ("grpc.server_handshake_timeout_ms", round(_LONGEST_HANDSHAKE * 1000)),
        ("grpc.max_connection_age_ms", round(_LONGEST_CONNECTION * 1000)),
        ("grpc.max_connection_age_grace_ms", round(_LONGEST_CALL * 1000)),
    ]


def _return_large_buffers() -> None:
    """Have the C library return buffers of a message's size to the system when they are freed.

    glibc comes to keep them, and for each thread anew: large messages would make the server grow.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # not in musl
        libc.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
        libc.mallopt(_M_ARENA_MAX, 2)


def _return_memory() -> None:
    """Have the C library return what it keeps for later: nothing is to be done."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # not in musl
        libc.malloc_trim(0)


def _leave_now(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)  # a second signal: the user does not want to wait for running calls
