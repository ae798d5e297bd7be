"""What is known of a call: events and the audit log's line are made of it."""

from __future__ import annotations


class CallRecord:
    """What is known of a call, filled in as it becomes known; empty is what was not.

    ``key`` is how the key is named (a reference, ``sample``, ``new``, or the KBC that opened the
    packet), ``fingerprint`` tells KEKs apart, ``packet`` is the annotation packet, and ``layer``
    the digest of the layer before encryption, as its private options have it. ``code`` is the gRPC
    status.
    """

    kid: str = ""
    algorithm: str = ""
    key: str = ""
    fingerprint: str = ""
    packet: bytes | None = None
    layer: str = ""
    code: str = "OK"
    message: str = ""
    seconds: float = 0.0

    def __init__(self, operation: str, client: str) -> None:
        self.operation, self.client = operation, client
