"""The only place that opens gRPC's channels and ports.

No proxy is ever asked: ``HTTPS_PROXY`` is for the web, and what goes through here are keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import grpc

from coco_kp.errors import RemoteError
from coco_kp.keyprovider.address import TcpAddress, UnixAddress
from coco_kp.keyprovider.config import GrpcTls
from coco_kp.keyprovider.socket_name import SocketName
from coco_kp.keyprovider.tls import channel_credentials
from coco_kp.values import dataclass


def open_channel(target: str, most_bytes: int, tls: GrpcTls | None = None) -> grpc.Channel:
    """Return a channel, to be closed, to what `parse_target` gave; nobody is called yet.

    Answers of more than ``most_bytes`` fail with RESOURCE_EXHAUSTED. Raises ``InputError`` for
    files of ``tls`` that cannot be used.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", most_bytes),
    ]
    if tls is None:
        return grpc.insecure_channel(target, options)
    if tls.server_name:
        # Also the name that is looked for in the certificate (GRPC_ARG_DEFAULT_AUTHORITY).
        options.append(("grpc.default_authority", tls.server_name))
    return grpc.secure_channel(target, channel_credentials(tls), options)


def bind(
    server: grpc.Server,
    address: TcpAddress | UnixAddress,
    credentials: grpc.ServerCredentials | None = None,
) -> Bound:
    """Bind a server.

    With ``credentials`` it speaks TLS there. Raises ``RemoteError`` or ``InputError`` if nobody can
    listen at ``address``.
    """
    address.check()  # gRPC would say only that it failed, and would take over a live Unix socket
    if isinstance(address, TcpAddress):
        port = _add_port(server, address, str(address), credentials)
        return Bound(str(TcpAddress(address.ip, port)), lambda: None)
    name = SocketName(address.path)
    umask = os.umask(0o177)
    try:
        _add_port(server, address, f"unix://{name.unnamed}", credentials)
        address.admit(name.unnamed)
        name.give()
    except BaseException:
        name.leave()
        raise
    finally:
        os.umask(umask)
    return Bound(str(address), name.leave)


@dataclass(frozen=True, slots=True)
class Bound:
    """The address that a server has, with the port that was chosen.

    ``leave`` is to be called once when it ends, before it closes its port: then others may take the
    address.
    """

    address: str
    leave: Callable[[], None]


def _add_port(
    server: grpc.Server,
    address: TcpAddress | UnixAddress,
    target: str,
    credentials: grpc.ServerCredentials | None,
) -> int:
    try:
        if credentials:
            return server.add_secure_port(target, credentials)
        return server.add_insecure_port(target)
    except RuntimeError:
        raise RemoteError(
            f"cannot listen on {address}", "may this user make a socket there?"
        ) from None
