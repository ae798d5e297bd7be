"""The audit log: a line of JSON for each call, in which no key is (docs/operations.md).

The form is that of ``coco-kp schema audit``.
"""

from __future__ import annotations

import hmac
import logging
import os
import select
import stat
import threading
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, RemoteError
from coco_kp.files import is_there, read_file, reason, unwritten, write_file
from coco_kp.observe import event
from coco_kp.redact import printable_json, redacted, shown
from coco_kp.service.record import CallRecord

_SALT_SIZE: Final = 32  # bytes, as many as of the hash
_SALT_SUFFIX: Final = ".salt"

_PATIENCE: Final = 1.0
"""Seconds that a line waits for a pipe whose reader is slow; none where the line before failed."""

_NEW: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# O_NONBLOCK: a FIFO without a reader is refused, not waited for.


class UnauditedError(RemoteError):
    """A call could not be recorded, and none is answered that is not."""

    code = "call-unaudited"


class AuditLog:
    """Where calls are recorded; threads may share it.

    ``descriptor`` is written to, that of ``path`` if that is a file's. With ``required`` no call
    is answered that was not recorded. ``salt`` is secret: with it, one who guesses a KEK could see
    from its fingerprint that he is right.
    """

    def __init__(
        self, descriptor: int, salt: bytes, *, path: Path | None = None, required: bool = False
    ) -> None:
        self._descriptor = descriptor
        self._salt = salt
        self._path = path
        self._required = required
        self._writing = threading.Lock()
        self._failing = False
        self._torn = path is not None and _is_torn(descriptor)

    def check(self) -> None:
        """Raise ``UnauditedError`` where the next call would not be recorded, as far as is known.

        That is so until a line could be written again, such as that of this refusal.
        """
        if self._required and self._failing:
            raise _unaudited()

    def write(self, record: CallRecord) -> None:
        """Record a call, whole. Raises ``UnauditedError`` if that fails and is required."""
        line = _line(record, datetime.now(UTC))
        with self._writing:
            failed = self._append(line)
            known, self._failing = self._failing, bool(failed)
        if failed:
            level = logging.DEBUG if known else logging.ERROR
            event(level, "unaudited", message=f"cannot write the audit log: {failed}")
            if self._required:
                raise _unaudited()

    def fingerprint(self, kek: Kek) -> str:
        """Return what identifies a KEK and does not reveal it: an HMAC under the salt."""
        return f"hmac-sha256:{hmac.digest(self._salt, kek.raw(), 'sha256').hex()}"

    def reopen(self) -> None:
        """Open the file anew, since the old one may have another name now.

        If that fails, the old one is written to as before.
        """
        if self._path is None:
            return
        try:
            opened = _opened(self._path)
        except InputError as error:
            event(logging.ERROR, "unaudited", message=f"the old audit log stays: {error.message}")
            return
        with self._writing:
            old, self._descriptor = self._descriptor, opened
            self._torn = _is_torn(opened)
        os.close(old)

    def _append(self, line: bytes) -> str:
        """Write a line; return why that failed, empty where it did not."""
        patience = 0.0 if self._failing else _PATIENCE
        data, written, failed = memoryview(b"\n" + line if self._torn else line), 0, ""
        try:
            while written < len(data):
                written += _write(self._descriptor, data[written:], patience)
        except TimeoutError:
            failed = "nobody reads it"
        except OSError as failure:
            failed = reason(failure)
        if written:
            self._torn = written < len(data)
        return failed


def _line(record: CallRecord, time: datetime) -> bytes:
    """Return a record as a line of JSON, without what looks like a key."""
    texts = {
        "operation": record.operation,
        "client": record.client,
        "kid": record.kid,
        "algorithm": record.algorithm,
        "key": record.key,
        "fingerprint": record.fingerprint,
        "packet": "" if record.packet is None else f"sha256:{sha256(record.packet).hexdigest()}",
        "layer": record.layer,
        "code": record.code,
        "message": record.message,
    }
    document = {
        "time": time.astimezone(UTC).isoformat(timespec="milliseconds"),
        **{name: redacted(text) or None for name, text in texts.items()},
        "milliseconds": round(record.seconds * 1000, 3),
    }
    return printable_json(document).encode() + b"\n"


def open_audit_log(target: str, *, required: bool) -> AuditLog:
    """Return the log of a file, made for its owner only where there is none, or of stdout (``-``).

    The salt of a file is kept beside it, in ``<file>.salt``; that of stdout is drawn. Raises
    ``InputError``.
    """
    if target == "-":
        return AuditLog(1, os.urandom(_SALT_SIZE), required=required)
    path = Path(target).absolute()
    return AuditLog(_opened(path), _salt(path), path=path, required=required)


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, _NEW, 0o600)
    except OSError as failure:
        raise unwritten(path, failure, "audit log") from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise InputError(f"the audit log {shown(str(path))} is not a regular file")


def _is_torn(descriptor: int) -> bool:
    """Return whether a file ends within a line, as where the disk was full, or a process killed."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _salt(path: Path) -> bytes:
    file = path.with_name(path.name + _SALT_SUFFIX)
    if not is_there(file):
        write_file(file, os.urandom(_SALT_SIZE), replace=False)
    salt = read_file(file, _SALT_SIZE).data
    if len(salt) != _SALT_SIZE:
        raise InputError(
            f"{shown(str(file))} is not a salt of {_SALT_SIZE} bytes",
            "remove it to have another one, under which earlier fingerprints cannot be compared",
        )
    return salt


def _write(descriptor: int, data: memoryview, patience: float) -> int:
    """Write some of ``data`` without waiting longer than ``patience`` seconds; return how much.

    Raises ``OSError``; it is ``TimeoutError`` where nobody read.
    """
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.write(descriptor, data)  # whole, so that processes may share a file
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(patience * 1000):
        raise TimeoutError
    return os.write(descriptor, data[: select.PIPE_BUF])  # what fits into a pipe that is ready


def _unaudited() -> UnauditedError:
    return UnauditedError(
        "the call cannot be recorded, and this provider answers no unrecorded call",
        "its owner's log says what is wrong with its audit log",
    )
