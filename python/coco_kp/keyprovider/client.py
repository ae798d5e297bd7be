"""A key provider, called as ocicrypt calls it: a program on its stdin and stdout, or a gRPC server.

gRPC costs more to load than a whole command that does not need it: only calls load it.
"""

from __future__ import annotations

import math
import subprocess
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from coco_kp.deadline import Alarm, remaining
from coco_kp.errors import RemoteError, UnreachableError
from coco_kp.keyprovider.address import parse_target
from coco_kp.keyprovider.call import METHODS, SERVICE
from coco_kp.keyprovider.config import CmdProvider, GrpcProvider
from coco_kp.model.encoding import MAX_MESSAGE
from coco_kp.model.protocol import Operation
from coco_kp.programs import run_program
from coco_kp.redact import shown

if TYPE_CHECKING:
    import grpc

TIMEOUT: Final = 60
"""Seconds for one call; a provider may ask a key management service far away."""

_HEALTH_SECONDS: Final = 5.0


def call_provider(
    name: str, door: CmdProvider | GrpcProvider, operation: Operation, request: bytes
) -> bytes:
    """Send a request in the protocol's JSON and return the answer's; ``name`` is for errors.

    Raises ``RemoteError`` for a provider that refuses or does not answer, ``InputError`` for one
    that cannot be called as its configuration says.
    """
    if isinstance(door, CmdProvider):
        return _run(name, door, request)
    return _ask(name, door, operation, request)


def check_health(door: GrpcProvider) -> str:
    """Ask a server how it is, with gRPC's health protocol.

    Returns ``SERVING``, or another status of the health protocol, or a note that the server has no
    health service, as upstream's has not. Raises ``RemoteError`` if nobody answers, ``InputError``
    for an invalid address.
    """
    import grpc  # noqa: PLC0415
    from grpc_health.v1 import health_pb2  # noqa: PLC0415

    with _channel(door) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return "answers, without a health service"
            why = f": {_said(error.details())}" if door.tls else ""
            raise RemoteError(
                f"no key provider answers at {door.address}{why}", code="provider-silent"
            ) from None
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def _run(name: str, door: CmdProvider, request: bytes) -> bytes:
    try:
        done = run_program((door.path, *door.arguments), seconds=TIMEOUT, given=request)
    except subprocess.TimeoutExpired:
        raise UnreachableError(f"{name} did not answer in time") from None
    except OSError as failure:
        raise RemoteError(f"{name} cannot be run: {shown(door.path)}: {failure.strerror}") from None
    if done.returncode != 0:
        said = shown(done.stderr.decode("utf-8", "replace").strip())
        raise RemoteError(f"{name} failed with exit code {done.returncode}: {said}")
    return done.stdout


def _ask(name: str, door: GrpcProvider, operation: Operation, request: bytes) -> bytes:
    import grpc  # noqa: PLC0415

    from coco_kp.keyprovider.messages_pb2 import (  # noqa: PLC0415
        keyProviderKeyWrapProtocolInput,
        keyProviderKeyWrapProtocolOutput,
    )

    with _channel(door) as channel:
        method = channel.unary_unary(
            f"/{SERVICE}/{METHODS[operation]}",
            keyProviderKeyWrapProtocolInput.SerializeToString,
            keyProviderKeyWrapProtocolOutput.FromString,
        )
        message = keyProviderKeyWrapProtocolInput(KeyProviderKeyWrapProtocolInput=request)
        call = method.future(message, timeout=remaining(TIMEOUT))
        with Alarm(math.inf, call.cancel):
            if call.code() is grpc.StatusCode.OK:  # waits for the end
                return call.result().KeyProviderKeyWrapProtocolOutput
        code, said = call.code().name, _said(call.details())
    unreachable = code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    raise (UnreachableError if unreachable else RemoteError)(
        f"{name}, {door}, answered {code}: {said}"
    )


def _channel(door: GrpcProvider) -> AbstractContextManager[grpc.Channel]:
    from coco_kp.keyprovider.channel import open_channel  # noqa: PLC0415

    return open_channel(parse_target(door.address), MAX_MESSAGE, door.tls)


def _said(details: str | None) -> str:
    """Quote the text of a status, without what gRPC writes before every failure to connect."""
    said = details or ""
    for words in ("last error: UNKNOWN: ", "OPENSSL_internal:"):
        said = said.rpartition(words)[2]
    return shown(said)
