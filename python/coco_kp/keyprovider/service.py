"""The gRPC service of the key provider: ``keyprovider.KeyProviderService``.

Its messages are a coat around the protocol's JSON, which the handler reads.
"""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf.message import DecodeError

from coco_kp.deadline import Caller, within
from coco_kp.errors import CocoKpError
from coco_kp.keyprovider.call import METHODS, SERVICE, Call, Handler, code_of
from coco_kp.keyprovider.messages_pb2 import (
    keyProviderKeyWrapProtocolInput,
    keyProviderKeyWrapProtocolOutput,
)
from coco_kp.keyprovider.peer import client_of
from coco_kp.keyprovider.server import Service
from coco_kp.keyprovider.waiting import Behavior
from coco_kp.model.client import ClientIdentity
from coco_kp.model.encoding import MAX_MESSAGE
from coco_kp.model.protocol import Operation

_LONGEST_TEXT: Final = 2000  # bytes of a status text; it travels in a header, %-encoded


def key_provider(handler: Handler) -> Service:
    """Return the service that answers by ``handler``."""
    methods = {method: _method(handler, operation) for operation, method in METHODS.items()}
    return Service(SERVICE, methods, MAX_MESSAGE)


def _method(handler: Handler, operation: Operation) -> Behavior:
    def handle(message: bytes, context: grpc.ServicerContext) -> bytes:
        caller = Caller()
        if not context.add_callback(caller.leave):
            caller.leave()
        try:
            with within(context.time_remaining(), caller):
                response = handler(_call(message, operation, client_of(context)))
        except Exception as error:  # noqa: BLE001 (one bad call must not hurt the others)
            # An unforeseen error's own text could quote the request: only its kind is shown.
            bug = f"unexpected error in coco-kp: {type(error).__name__}"
            text = str(error) if isinstance(error, CocoKpError) else bug
            context.abort(grpc.StatusCode[code_of(error)], _shortened(text))
        output = keyProviderKeyWrapProtocolOutput(KeyProviderKeyWrapProtocolOutput=response)
        return output.SerializeToString()

    return handle


def _call(message: bytes, operation: Operation, client: ClientIdentity) -> Call:
    try:
        request = keyProviderKeyWrapProtocolInput.FromString(message)
    except DecodeError:
        return Call(b"", operation, client, malformed="the request is not a protobuf message")
    return Call(request.KeyProviderKeyWrapProtocolInput, operation, client)


def _shortened(text: str) -> str:
    return text.encode()[:_LONGEST_TEXT].decode(errors="ignore")
