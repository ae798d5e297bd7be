"""A gRPC server in this process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Final

import grpc

from coco_kp.keyprovider.address import TcpAddress, UnixAddress
from coco_kp.keyprovider.channel import bind
from coco_kp.keyprovider.server import Service, new_server

ANYWHERE: Final = TcpAddress(ip_address("127.0.0.1"), 0)
"""Loopback, at a port that is free."""


@contextmanager
def serving(
    service: Service,
    address: TcpAddress | UnixAddress = ANYWHERE,
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[str]:
    """Serve while the block runs; give the address as clients' configuration takes it."""
    with ThreadPoolExecutor(8) as pool:
        server = new_server(service, pool)
        bound = bind(server, address, credentials)
        server.start()
        try:
            yield bound.address
        finally:
            server.stop(None).wait()
