"""The gRPC service of the key provider: ``keyprovider.KeyProviderService``.

Its messages are a coat around the protocol's JSON, which the handler reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import grpc
from google.protobuf.message import DecodeError

from coco_kp.deadline import Caller, within
from coco_kp.errors import CocoKpError, KeyPathForbiddenError, RemoteError
from coco_kp.keyprovider.call import Call, Handler, MalformedRequestError
from coco_kp.keyprovider.messages_pb2 import (
    keyProviderKeyWrapProtocolInput,
    keyProviderKeyWrapProtocolOutput,
)
from coco_kp.keyprovider.peer import client_of
from coco_kp.keyprovider.server import Service
from coco_kp.model.encoding import MAX_MESSAGE
from coco_kp.model.protocol import Operation
from coco_kp.observe import event

SERVICE: Final = "keyprovider.KeyProviderService"
METHODS: Final[dict[str, Operation]] = {"WrapKey": "keywrap", "UnWrapKey": "keyunwrap"}
"""The protocol's two methods (docs/protocols.md 2.2)."""

_LONGEST_TEXT: Final = 2000  # bytes of a status text; it travels in a header, %-encoded


def key_provider(handler: Handler) -> Service:
    """Return the service that answers by ``handler``."""
    methods: dict[str, grpc.RpcMethodHandler[bytes, keyProviderKeyWrapProtocolOutput]] = {
        method: grpc.unary_unary_rpc_method_handler(
            _method(handler, operation),
            response_serializer=keyProviderKeyWrapProtocolOutput.SerializeToString,
        )
        for method, operation in METHODS.items()
    }
    return Service(SERVICE, methods, MAX_MESSAGE)


def _method(
    handler: Handler, operation: Operation
) -> Callable[[bytes, grpc.ServicerContext], keyProviderKeyWrapProtocolOutput]:
    def handle(message: bytes, context: grpc.ServicerContext) -> keyProviderKeyWrapProtocolOutput:
        caller = Caller()
        if not context.add_callback(caller.leave):
            caller.leave()
        try:
            with within(context.time_remaining(), caller):
                response = handler(
                    Call(_request(message, operation), operation, client_of(context))
                )
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
