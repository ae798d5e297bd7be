"""Going to the background, in the order that keeps it honest.

The fork comes before gRPC and its threads are loaded, the parent waits until the service is ready
and fails if it is not, and only then does the log file take the place of the terminal. Its
directory is this user's alone: whoever could put a link there would have us write where he likes.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError, RemoteError
from coco_kp.files import home, open_own, read_file, reason
from coco_kp.locks import lock_file
from coco_kp.redact import shown
from coco_kp.values import dataclass

_READY: Final = b"ready"
_LONGEST_PID: Final = 32  # bytes


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
        log = open_own(self.log_file, os.O_WRONLY | os.O_APPEND)
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
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if runtime.is_absolute():  # others are to be ignored, says the XDG specification
        folder = runtime / "coco-kp"
    elif os.geteuid() == 0:
        folder = Path("/run/confidential-containers")
    else:
        folder = home() / ".local" / "state" / "coco-kp"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as failure:
        raise InputError(f"cannot use {shown(str(folder))}: {reason(failure)}") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise InputError(
            f"cannot use {shown(str(folder))}: it is not a directory of this user alone",
            "set XDG_RUNTIME_DIR to your own directory, or let systemd run the server without -d",
        )
    return folder


def _lock_pid_file(path: Path) -> int:
    descriptor = lock_file(path)
    if descriptor is None:
        pid = read_file(path, _LONGEST_PID).data.decode(errors="replace").strip()
        raise RemoteError(
            f"a provider is running in the background as process {pid}", f"stop it: kill {pid}"
        )
    return descriptor
