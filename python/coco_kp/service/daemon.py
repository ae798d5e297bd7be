"""Going to the background, in the order that keeps it honest.

The fork comes before gRPC and its threads are loaded, the parent waits until the service is ready
and fails if it is not, and only then does the log file take the place of the terminal.
"""

from __future__ import annotations

import fcntl
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError, RemoteError, shown
from coco_kp.files import reason

_READY: Final = b"ready"


@dataclass(frozen=True, slots=True)
class Daemon:
    """The background process's own view: its pid file (locked while it lives), log and parent."""

    pid_file: Path
    log_file: Path
    _lock: int
    _parent: int

    @staticmethod
    def start() -> Daemon:
        """Fork. Only the child returns; the parent exits 0 when the child is ready, else as it did.

        Raises ``RemoteError`` if one is running, ``InputError`` if its files cannot be made.
        """
        folder = _state_folder()
        pid_file, log_file = folder / "coco-kp.pid", folder / "coco-kp.log"
        lock = _lock_pid_file(pid_file)
        reader, writer = os.pipe()
        child = os.fork()
        if child:
            os.close(writer)
            os._exit(_wait_until_ready(child, reader, log_file))
        os.close(reader)
        os.setsid()
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        return Daemon(pid_file, log_file, lock, writer)

    def ready(self) -> None:
        """Turn stdout and stderr to the log file, and let the parent exit 0."""
        log = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        sys.stdout.flush()
        sys.stderr.flush()
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.close(log)
        os.close(null)
        os.write(self._parent, _READY)
        os.close(self._parent)

    def ended(self) -> None:
        """Remove the pid file."""
        self.pid_file.unlink(missing_ok=True)


def _wait_until_ready(child: int, reader: int, log_file: Path) -> int:
    if os.read(reader, len(_READY)) == _READY:
        sys.stderr.write(f"coco-kp: in the background as process {child}, log: {log_file}\n")
        sys.stderr.flush()
        return 0
    _, status = os.waitpid(child, 0)  # it has said why on the terminal that both share
    return os.waitstatus_to_exitcode(status) or 1


def _state_folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        folder = Path(runtime) / "coco-kp"
    elif os.geteuid() == 0:
        folder = Path("/run/confidential-containers")
    else:
        folder = Path.home() / ".local" / "state" / "coco-kp"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as failure:
        raise InputError(f"cannot use {shown(str(folder))}: {reason(failure)}") from None
    return folder


def _lock_pid_file(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as failure:
        raise InputError(f"cannot write {shown(str(path))}: {reason(failure)}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(descriptor, 32).decode(errors="replace").strip()
        raise RemoteError(
            f"a provider is running in the background as process {pid}", f"stop it: kill {pid}"
        ) from None
    return descriptor
