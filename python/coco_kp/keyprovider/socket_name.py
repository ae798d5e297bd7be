"""The name of a Unix socket: one server at a time has it, and removes none but its own.

Whoever holds the lock of the file beside it (``kp.sock.lock``) may take the name. A new socket
is bound under a name of its own and renamed, so that it is there at once in place of one that a
dead server left; and gRPC, which removes what it has bound when it ends, does not find it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from coco_kp.errors import RemoteError
from coco_kp.locks import lock_file


class SocketName:
    """A socket's path, held until :meth:`leave`; ``unnamed`` is where to bind the socket."""

    def __init__(self, path: Path) -> None:
        """Take hold of a path. Raises ``RemoteError`` if another server has it, ``InputError``."""
        self._path = path
        self._beside = path.with_name(f"{path.name}.lock")
        lock = lock_file(self._beside)
        if lock is None:
            raise RemoteError(
                f"cannot listen on unix://{path}: another server has it",
                "stop it, or choose another address",
            )
        self._lock = lock
        self._socket: os.stat_result | None = None
        self.unnamed = path.with_name(f".{os.urandom(4).hex()}")

    def give(self) -> None:
        """Rename the bound socket to its final name. Raises ``OSError``."""
        self._socket = self.unnamed.lstat()
        self.unnamed.rename(self._path)

    def leave(self) -> None:
        """Remove the socket, if it is ours, and let others have the name."""
        with contextlib.suppress(OSError):
            if self._socket and os.path.samestat(self._path.lstat(), self._socket):
                self._path.unlink()
        for file in (self.unnamed, self._beside):
            with contextlib.suppress(OSError):
                file.unlink()
        os.close(self._lock)
