"""gRPC's health protocol, as far as probes ask: ``Check`` (grpc/doc/health-checking.md).

``Watch`` is not offered, which the protocol allows. grpcio's own servicer waits until a watcher has
room for each status, and holds a lock meanwhile: one who reads nothing would hold up all who ask
for the health, and the server itself, which could then not even be told to end.
"""

from __future__ import annotations

import threading

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

_SERVICE = "grpc.health.v1.Health"


class Health:
    """What is served, by name, and whether it is; threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving: dict[str, bool] = {}
        self._ended = False

    def set(self, name: str, *, serving: bool) -> None:
        """Say whether a service can be called now; nothing is changed after `end`."""
        with self._lock:
            if not self._ended:
                self._serving[name] = serving

    def end(self) -> None:
        """Say of all services, and for good, that they cannot be called."""
        with self._lock:
            self._ended = True
            self._serving = dict.fromkeys(self._serving, False)

    def offer(self, server: grpc.Server) -> None:
        """Have a server answer for it."""
        check: grpc.RpcMethodHandler[bytes, health_pb2.HealthCheckResponse] = (
            grpc.unary_unary_rpc_method_handler(
                self._check, response_serializer=health_pb2.HealthCheckResponse.SerializeToString
            )
        )
        handler = grpc.method_handlers_generic_handler(_SERVICE, {"Check": check})
        server.add_generic_rpc_handlers((handler,))

    def _check(
        self, message: bytes, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        try:
            name = health_pb2.HealthCheckRequest.FromString(message).service
        except DecodeError:
            text = "the request is not a protobuf message"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        serving = self._serving.get(name)
        if serving is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        known = health_pb2.HealthCheckResponse
        return known(status=known.SERVING if serving else known.NOT_SERVING)
