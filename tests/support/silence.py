"""A peer that takes connections and says nothing, as a server does that hangs."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class SilentPeer:
    """Where it listens; how often it was asked, and how many of those asked no more."""

    address: str
    asked: int = 0
    left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def listen(self, connection: socket.socket) -> None:
        """Read what somebody says, until he leaves."""
        with connection:
            connection.recv(65536)
            with self._lock:
                self.asked += 1
            try:
                while connection.recv(65536):
                    pass
            except ConnectionResetError:
                pass
            with self._lock:
                self.left += 1


@contextmanager
def silent_peer() -> Iterator[SilentPeer]:
    """Run a silent peer while the block runs."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        host, port = server.getsockname()
        peer = SilentPeer(f"{host}:{port}")

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=peer.listen, args=(connection,), daemon=True).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield peer
        finally:
            server.shutdown(socket.SHUT_RDWR)
            accepting.join()
