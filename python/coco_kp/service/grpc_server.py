"""The gRPC door: ``keyprovider.KeyProviderService``, with health, on TCP or a Unix socket."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Final, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from coco_kp.errors import CocoKpError, KeyPathForbiddenError, RemoteError
from coco_kp.model.encoding import MAX_MESSAGE
from coco_kp.model.protocol import Operation
from coco_kp.observe import event
from coco_kp.provider import Provider
from coco_kp.service.address import TcpAddress, UnixAddress
from coco_kp.service.calls import MalformedRequestError, answer
from coco_kp.service.keyprovider_pb2 import (
    keyProviderKeyWrapProtocolInput,
    keyProviderKeyWrapProtocolOutput,
)

SERVICE: Final = "keyprovider.KeyProviderService"
METHODS: Final[dict[str, Operation]] = {"WrapKey": "keywrap", "UnWrapKey": "keyunwrap"}
"""The protocol's two methods (docs/protocols.md 2.2)."""

_MOST_CALLS: Final = 256
"""Calls at a time; more are refused with RESOURCE_EXHAUSTED. Each may take a thread, made when it
is needed: a client that begins a call and sends nothing keeps one, and must not keep others out."""

_GRACE: Final = 30.0  # seconds that running calls have to finish after a signal
_LOOK: Final = 0.5  # seconds after which a signal is seen that interrupted nobody
_LONGEST_TEXT: Final = 2000  # bytes of a status text; it travels in a header, %-encoded

# What a client begins and does not end, the server ends: a connection is asked to close after the
# first number of seconds (clients open another unnoticed), and its calls are cut off after both.
_LONGEST_CONNECTION: Final = 60.0
_LONGEST_CALL: Final = 120.0

_M_MMAP_THRESHOLD: Final = -3  # of glibc's malloc.h, as the next
_M_ARENA_MAX: Final = -8


def serve(
    provider: Provider, address: TcpAddress | UnixAddress, on_ready: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the running calls and return.

    ``on_ready`` is called once with the address, as clients' configuration takes it, when calls
    are accepted. Must be called in the main thread. Raises ``RemoteError`` or ``InputError`` if
    nobody can listen at ``address``.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    _return_large_buffers()
    with ThreadPoolExecutor(_MOST_CALLS, thread_name_prefix="call") as pool:
        server = new_server(provider, pool)
        bound = bind(server, address)
        server.start()
        on_ready(bound)
        # A signal that reaches another thread, or this one just before it waits, wakes nobody: its
        # handler runs when this thread looks again.
        while not stop.wait(_LOOK):
            pass
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave_now)
        server.stop(_GRACE).wait()
    if isinstance(address, UnixAddress):
        address.path.unlink(missing_ok=True)


def new_server(provider: Provider, pool: ThreadPoolExecutor) -> grpc.Server:
    """Make the server; it is not bound and not started."""
    server = grpc.server(
        pool,
        options=[
            ("grpc.so_reuseport", 0),  # or a second server would share the port unnoticed
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_connection_age_ms", round(_LONGEST_CONNECTION * 1000)),
            ("grpc.max_connection_age_grace_ms", round(_LONGEST_CALL * 1000)),
        ],
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    handlers: dict[str, grpc.RpcMethodHandler[bytes, keyProviderKeyWrapProtocolOutput]] = {
        method: grpc.unary_unary_rpc_method_handler(
            _handler(provider, operation),
            response_serializer=keyProviderKeyWrapProtocolOutput.SerializeToString,
        )
        for method, operation in METHODS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    servicer = health.HealthServicer()
    for service in ("", SERVICE):
        servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return server


def _handler(
    provider: Provider, operation: Operation
) -> Callable[[bytes, grpc.ServicerContext], keyProviderKeyWrapProtocolOutput]:
    def handle(message: bytes, context: grpc.ServicerContext) -> keyProviderKeyWrapProtocolOutput:
        try:
            response = answer(provider, _request(message, operation), operation)
        except CocoKpError as error:
            context.abort(_status(error), _shortened(str(error)))
        except Exception as error:  # noqa: BLE001 (one bad call must not hurt the others)
            # The error's own text could quote the request: only its kind is shown.
            kind = type(error).__name__
            event(logging.ERROR, "bug", method=operation, message=kind)
            context.abort(grpc.StatusCode.INTERNAL, f"unexpected error in coco-kp: {kind}")
        return keyProviderKeyWrapProtocolOutput(KeyProviderKeyWrapProtocolOutput=response)

    return handle


def _request(message: bytes, operation: Operation) -> bytes:
    try:
        return keyProviderKeyWrapProtocolInput.FromString(message).KeyProviderKeyWrapProtocolInput
    except DecodeError:
        text = "the request is not a protobuf message"
        event(logging.INFO, "refused", method=operation, message=text)
        raise MalformedRequestError(text) from None


def _shortened(text: str) -> str:
    return text.encode()[:_LONGEST_TEXT].decode(errors="ignore")


def _status(error: CocoKpError) -> grpc.StatusCode:
    if isinstance(error, MalformedRequestError):
        return grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(error, KeyPathForbiddenError):
        return grpc.StatusCode.PERMISSION_DENIED
    if isinstance(error, RemoteError):
        return grpc.StatusCode.UNAVAILABLE
    return grpc.StatusCode.FAILED_PRECONDITION


def bind(server: grpc.Server, address: TcpAddress | UnixAddress) -> str:
    """Bind and give the address with the port that was chosen."""
    address.check()  # gRPC would say only that it failed, and would take over a live Unix socket
    umask = os.umask(0o177) if isinstance(address, UnixAddress) else None
    try:
        port = server.add_insecure_port(str(address))
    except RuntimeError:
        raise RemoteError(
            f"cannot listen on {address}", "may this user make a socket there?"
        ) from None
    finally:
        if umask is not None:
            os.umask(umask)
    return str(TcpAddress(address.ip, port)) if isinstance(address, TcpAddress) else str(address)


def _return_large_buffers() -> None:
    """Have the C library return buffers of a message's size to the system when they are freed.

    glibc comes to keep them, and for each thread anew: large messages would make the server grow.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # not in musl
        libc.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
        libc.mallopt(_M_ARENA_MAX, 2)


def _leave_now(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)  # a second signal: the user does not want to wait for running calls
