"""The gRPC door: ``keyprovider.KeyProviderService``, with health, on TCP or a Unix socket."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Final, NoReturn

import grpc
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
_LONGEST_TEXT: Final = 2000  # characters of a status text; it travels in a header


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
    with ThreadPoolExecutor(_MOST_CALLS, thread_name_prefix="call") as pool:
        server = _server(provider, pool)
        bound = _bind(server, address)
        server.start()
        on_ready(bound)
        stop.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave_now)
        server.stop(_GRACE).wait()
    if isinstance(address, UnixAddress):
        address.path.unlink(missing_ok=True)


def _server(provider: Provider, pool: ThreadPoolExecutor) -> grpc.Server:
    server = grpc.server(
        pool,
        options=[
            ("grpc.so_reuseport", 0),  # or a second server would share the port unnoticed
            ("grpc.max_receive_message_length", MAX_MESSAGE),
        ],
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(
            _handler(provider, operation),
            request_deserializer=keyProviderKeyWrapProtocolInput.FromString,
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
) -> Callable[
    [keyProviderKeyWrapProtocolInput, grpc.ServicerContext], keyProviderKeyWrapProtocolOutput
]:
    def handle(
        request: keyProviderKeyWrapProtocolInput, context: grpc.ServicerContext
    ) -> keyProviderKeyWrapProtocolOutput:
        try:
            response = answer(provider, request.KeyProviderKeyWrapProtocolInput, operation)
        except CocoKpError as error:
            context.abort(_status(error), str(error)[:_LONGEST_TEXT])
        except Exception as error:  # noqa: BLE001 (one bad call must not hurt the others)
            # The error's own text could quote the request: only its kind is shown.
            kind = type(error).__name__
            event(logging.ERROR, "bug", method=operation, message=kind)
            context.abort(grpc.StatusCode.INTERNAL, f"unexpected error in coco-kp: {kind}")
        return keyProviderKeyWrapProtocolOutput(KeyProviderKeyWrapProtocolOutput=response)

    return handle


def _status(error: CocoKpError) -> grpc.StatusCode:
    if isinstance(error, MalformedRequestError):
        return grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(error, KeyPathForbiddenError):
        return grpc.StatusCode.PERMISSION_DENIED
    if isinstance(error, RemoteError):
        return grpc.StatusCode.UNAVAILABLE
    return grpc.StatusCode.FAILED_PRECONDITION


def _bind(server: grpc.Server, address: TcpAddress | UnixAddress) -> str:
    """Bind and give the address with the port that was chosen."""
    address.check()  # gRPC would say only that it failed, and would take over a live Unix socket
    umask = os.umask(0o177) if isinstance(address, UnixAddress) else None
    try:
        port = server.add_insecure_port(str(address))
    except RuntimeError:
        raise RemoteError(f"cannot listen on {address}") from None
    finally:
        if umask is not None:
            os.umask(umask)
    return str(TcpAddress(address.ip, port)) if isinstance(address, TcpAddress) else str(address)


def _leave_now(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)  # a second signal: the user does not want to wait for running calls
