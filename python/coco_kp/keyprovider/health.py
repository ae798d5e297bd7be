"""gRPC's health protocol, as far as probes ask: ``Check`` (grpc/doc/health-checking.md).

``Watch`` is not offered, which the protocol allows. grpcio's own servicer waits until a watcher has
room for each status, and holds a lock meanwhile: one who reads nothing would hold up all who ask
for the health, and the server itself, which could then not even be told to end.
"""

from __future__ import annotations

import threading
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

SERVICE: Final = "grpc.health.v1.Health"
LONGEST_PROBE: Final = 1024
"""Bytes of a request, at the most."""


class Health:
    """What is served, by name, and whether it is; threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving: dict[str, bool] = {}
        self._ended = False

    def set(self, name: str, *, serving: bool) -> None:
        """Record whether a service can be called now; nothing is changed after `end`."""
        with self._lock:
            if not self._ended:
                self._serving[name] = serving

    def end(self) -> None:
        """Say of all services, and for good, that they cannot be called."""
        with self._lock:
            self._ended = True
            self._serving = dict.fromkeys(self._serving, False)

    def check(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer the method ``Check``."""
        try:
            name = health_pb2.HealthCheckRequest.FromString(message).service
        except DecodeError:
            text = "the request is not a protobuf message"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        serving = self._serving.get(name)
        if serving is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        known = health_pb2.HealthCheckResponse
        status = known.SERVING if serving else known.NOT_SERVING
        return known(status=status).SerializeToString()
