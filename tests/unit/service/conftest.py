"""A gRPC server in this process, and a client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import grpc
import pytest

from coco_kp.provider import Provider
from coco_kp.service.grpc_server import new_server
from tests.support.ocicrypt import connection

Serve = Callable[[Provider], AbstractContextManager[grpc.Channel]]


@pytest.fixture
def serve() -> Serve:
    """Gives a client's channel to a server with the given provider."""

    @contextmanager
    def serving(provider: Provider) -> Iterator[grpc.Channel]:
        with ThreadPoolExecutor(8) as pool:
            server = new_server(provider, pool)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            try:
                with connection(f"127.0.0.1:{port}") as channel:
                    yield channel
            finally:
                server.stop(None).wait()

    return serving
