"""Whether a key provider answers at an address: asked with gRPC's health protocol."""

from __future__ import annotations

from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from coco_kp.errors import RemoteError

_SECONDS: Final = 5.0


def check_health(address: str) -> str:
    """Ask the server at ``address`` (as in ocicrypt's configuration) how it is.

    Gives ``SERVING``, or another status of the health protocol, or a note that the server has no
    health service, as upstream's has not. Raises ``RemoteError`` if nobody answers.
    """
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return "answers, without a health service"
            raise RemoteError(
                f"no key provider answers at {address}", "start it: coco-kp serve"
            ) from None
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
