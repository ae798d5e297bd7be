"""What a door of the key provider hands over, and what it may be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coco_kp.errors import CocoKpError, NotAllowedError, RemoteError
from coco_kp.model.client import PROCESS, ClientIdentity
from coco_kp.model.protocol import Operation
from coco_kp.values import dataclass, field

SERVICE: Final = "keyprovider.KeyProviderService"
METHODS: Final[dict[Operation, str]] = {"keywrap": "WrapKey", "keyunwrap": "UnWrapKey"}
"""The protocol's two methods (docs/protocols.md 2.2)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it came through a door: the protocol's JSON, and what the door knows of it.

    ``operation`` is None where only the request itself says it. ``malformed`` says why there is no
    request, where what came does not even have the form that the door reads.
    """

    request: bytes = field(repr=False)
    operation: Operation | None = None
    client: ClientIdentity = PROCESS
    malformed: str = ""


Handler = Callable[[Call], bytes]
"""Answers a call in the protocol's JSON; raises ``CocoKpError`` where it is refused."""


class MalformedRequestError(CocoKpError):
    """The request cannot be understood: the client's fault, not that of a key or a parameter."""

    exit_code = 3
    code = "request-malformed"


class TooManyCallsError(CocoKpError):
    """More calls came than this server, or this client's share of it, has room for."""

    exit_code = 6
    code = "too-many-calls"


def code_of(error: Exception) -> str:
    """Return the name of the gRPC status that an error of a ``Handler`` is answered with."""
    if isinstance(error, MalformedRequestError):
        return "INVALID_ARGUMENT"
    if isinstance(error, TooManyCallsError):
        return "RESOURCE_EXHAUSTED"
    if isinstance(error, NotAllowedError):
        return "PERMISSION_DENIED"
    if isinstance(error, RemoteError):
        return "UNAVAILABLE"
    return "FAILED_PRECONDITION" if isinstance(error, CocoKpError) else "INTERNAL"
