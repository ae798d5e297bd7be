"""What a door of the key provider hands over, and what it may be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from coco_kp.errors import CocoKpError
from coco_kp.model.client import PROCESS, ClientIdentity
from coco_kp.model.protocol import Operation


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it came through a door: the protocol's JSON, and what the door knows of it.

    ``operation`` is None where only the request itself says it.
    """

    request: bytes = field(repr=False)
    operation: Operation | None = None
    client: ClientIdentity = PROCESS


Handler = Callable[[Call], bytes]
"""Answers a call in the protocol's JSON; raises ``CocoKpError`` where it is refused."""


class MalformedRequestError(CocoKpError):
    """The request is no request at all: the client's fault, not that of a key or a parameter."""

    exit_code = 3
