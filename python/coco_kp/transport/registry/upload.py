"""Uploads: one blob as POST, one streamed PATCH, PUT (distribution-spec, pushing a blob in chunks).

What is written goes to a temporary file first, from which a thread of its own sends it, close
behind the writer. So an upload that breaks goes on from the offset that the registry reports, and
nothing is ever encrypted twice to send it again: a second pass under the same key and nonce over a
source that changed in between would give both away.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from coco_kp.errors import CocoKpError, IntegrityError, RemoteError, UnreachableError
from coco_kp.files import close
from coco_kp.http import NEVER, Response
from coco_kp.http.retry import RETRIED, retry_after
from coco_kp.model.digest import Digest
from coco_kp.transport.base import CHUNK, BlobWriter
from coco_kp.transport.files import naming_temporary, temporary_folder, unnamed_file, write_all
from coco_kp.transport.registry.client import RegistryClient

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_POLL: Final = 0.005
"""Seconds between two looks for more to send."""

_ABORT_SECONDS: Final = 5.0
"""Seconds that dropping a blob waits for a send that is under way."""

_BROKEN: Final = RETRIED | {401, 404, 416}
"""Answers to a PATCH after which there may be something to go on with: the registry is busy, our
token expired on the way, the upload is lost, or it has another offset than we thought."""


_FIRST_PIECE: Final = 256 * 1024
_LEAST_PIECE: Final = 16 * 1024
"""Bytes of a PATCH after two that broke and left nothing; each further one makes it smaller, down
to what the registry takes (``OCI-Chunk-Min-Length``)."""


class _AbandonedError(CocoKpError):
    """The writer dropped the blob while it was being sent."""


@dataclass(frozen=True, slots=True)
class _Broken:
    """What broke a request, and the pause in seconds that the registry asked for."""

    error: RemoteError
    asked: float | None = None


class RegistryBlobWriter(BlobWriter):
    """A blob on its way to a registry; ``keep`` is called with its digest once it is there.

    ``size`` (bytes) is what the blob will have, or None: then it is sent in HTTP chunks.
    """

    def __init__(
        self, client: RegistryClient, size: int | None, keep: Callable[[Digest], None]
    ) -> None:
        self._client = client
        self._size = size
        self._keep = keep
        self._spool = self.fd = unnamed_file()
        self.folder = temporary_folder()
        self._complete = threading.Event()
        self._abandoned = False
        self._failure: BaseException | None = None
        self._location = ""
        self._resumed = False
        self._least = _LEAST_PIECE
        self._sender = threading.Thread(target=self._send_all, name="upload", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread is to be had: commit sends it
            self._sender.start()

    def write(self, data: ReadableBuffer) -> None:
        """Append ``data`` to what is to be sent; raises what the sending failed with."""
        if self.fd is None:
            raise ValueError("the blob is finished")
        if self._failure is not None:
            raise self._failure
        with naming_temporary():
            write_all(self.fd, memoryview(data).cast("B"))

    def commit(self, digest: Digest, size: int) -> None:
        """Wait until all is sent, and let the registry check and name it."""
        with self:
            found = self._spooled()
            if found != size or self._size not in (None, size):
                raise IntegrityError(f"the blob {digest} has {found} bytes, expected {size}")
            self._complete.set()
            self._await_sender()
            if self._failure is not None:
                raise self._failure
            self._finish(digest)
            self._location = ""
        self._keep(digest)

    def abort(self) -> None:
        """Stop sending, and let the registry forget what it got."""
        if self.fd is None:
            return
        self.fd = None
        self._abandoned = True
        self._complete.set()
        if self._sender.is_alive():
            self._sender.join(_ABORT_SECONDS)
        if self._sender.is_alive():
            return  # it hangs in a dead connection, and still reads the file
        close(self._spool)
        if self._location:
            with contextlib.suppress(CocoKpError):
                self._client.request("DELETE", self._location, retry=NEVER).close()

    def _await_sender(self) -> None:
        if self._sender.ident is None:  # it has never started
            self._send_all()
        else:
            self._sender.join()

    def _spooled(self) -> int:
        """Count the bytes that were written so far."""
        with naming_temporary():
            return os.fstat(self._spool).st_size

    def _send_all(self) -> None:
        try:
            self._transfer()
        except BaseException as exc:  # noqa: BLE001 - the writer's thread raises it
            self._failure = exc

    def _transfer(self) -> None:
        """Send until all is there; several breaks in a row without progress end it."""
        offset, reached, piece, retry = self._start(), 0, 0, self._client.retry
        while (end := self._end_of_piece(offset, piece)) != offset:
            broken = self._patch(offset, end)
            if broken is None:
                if end is None:
                    return
                offset = end
            else:
                self._resumed = True
                retry = retry.after(broken.asked)
                if (piece or retry.failures > 1) and isinstance(broken.error, UnreachableError):
                    # Distribution loses an upload of which a request broke: let a piece arrive.
                    piece = max(piece // 4 if piece else _FIRST_PIECE, self._least)
                if not retry.over:
                    retry.wait(broken.error.message, self._client.sleep)
                offset = self._reported_offset()
                if offset <= reached and retry.over:
                    raise broken.error
            if offset > reached:
                reached, retry = offset, self._client.retry

    def _end_of_piece(self, offset: int, piece: int) -> int | None:
        """Wait for ``piece`` bytes from ``offset`` on, or all that come; None to wait for none."""
        if not piece:
            return None
        while not self._complete.is_set() and self._spooled() < offset + piece:
            self._complete.wait(_POLL)
        if self._abandoned:
            raise _AbandonedError("the blob was dropped")
        return min(offset + piece, self._spooled())

    def _start(self) -> int:
        response = self._client.request("POST", self._client.url("blobs/uploads/"), body=b"")
        if not response.ok:
            raise self._client.refused(response)
        with response:
            self._location = response.location
            least = response.headers.get("OCI-Chunk-Min-Length", "")
            if re.fullmatch(r"[0-9]{1,9}", least):
                self._least = max(_LEAST_PIECE, int(least))
        return 0

    def _patch(self, offset: int, end: int | None) -> _Broken | None:
        """Send from ``offset`` to ``end``, or all; return what broke it, if going on may help."""
        headers = {"Content-Type": "application/octet-stream"}
        last = self._size if end is None else end
        if last is not None:
            headers["Content-Length"] = str(last - offset)
            if offset or end is not None:
                headers["Content-Range"] = f"{offset}-{last - 1}"
        if end is not None:
            headers["Connection"] = "close"  # so that each has all that a connection lasts
        try:
            response = self._client.request(
                "PATCH", self._location, headers=headers, body=lambda: self._pieces(offset, last)
            )
        except UnreachableError as exc:
            return _Broken(exc)
        if response.status in _BROKEN:
            asked = retry_after(response.headers)
            return _Broken(self._client.refused(response), asked)
        if not response.ok:
            raise self._client.refused(response)
        with response:
            self._follow(response)
            reached = _end_of_range(response)
            sent = self._spooled() if end is None else end
            if reached is not None and reached != sent and sent > 1:
                return _Broken(
                    RemoteError(f"{response.request}: the registry has {reached} of {sent} bytes")
                )
        return None

    def _pieces(self, offset: int, last: int | None) -> Iterator[bytes]:
        end = sys.maxsize if last is None else last
        while offset < end:
            complete = self._complete.is_set()  # asked first: after it, nothing is written
            with naming_temporary():  # no ``OSError``, which would be a broken connection's
                data = os.pread(self._spool, min(CHUNK, end - offset), offset)
            if self._abandoned or (complete and not data and self._size is not None):
                raise _AbandonedError("the blob was dropped")
            if data:
                yield data
                offset += len(data)
            elif complete:
                return
            else:
                self._complete.wait(_POLL)

    def _reported_offset(self) -> int:
        """Ask the registry how much it has; where it does not know, start anew."""
        with self._client.request("GET", self._location) as response:
            offset = _end_of_range(response)
            if response.ok and offset is not None and offset > 1:
                self._follow(response)
                if offset <= self._spooled():
                    return offset
        return self._start()

    def _finish(self, digest: Digest) -> None:
        retry = self._client.retry
        while True:
            separator = "&" if "?" in self._location else "?"
            url = f"{self._location}{separator}{urlencode({'digest': str(digest)})}"
            try:
                response = self._client.request("PUT", url, body=b"", retry=NEVER)
            except UnreachableError as exc:
                broken = _Broken(exc)
                with contextlib.suppress(UnreachableError):
                    if self._client.has_blob(digest):
                        return  # only the answer was lost
            else:
                if response.ok:
                    with response:
                        check_digest(response, digest)
                    return
                asked = retry_after(response.headers)
                broken = _Broken(self._client.refused(response), asked)
                if response.status in (404, 416) or (response.status == 400 and self._resumed):
                    self._resumed = False
                    self._transfer()  # the registry lost what it got, or mixed it up
                elif response.status not in RETRIED:
                    raise broken.error
            retry = retry.after(broken.asked)
            if retry.over:
                raise broken.error
            retry.wait(broken.error.message, self._client.sleep)

    def _follow(self, response: Response) -> None:
        if "Location" in response.headers:
            self._location = response.location


def check_digest(response: Response, digest: Digest) -> None:
    """Compare the digest that a registry gives for what it sent or got with ours."""
    stated = response.headers.get("Docker-Content-Digest", "")
    if stated.startswith(f"{digest.algorithm}:") and stated != str(digest):
        raise IntegrityError(
            f"{response.request}: expected {digest}, the registry says {response.quote(stated)}"
        )


def _end_of_range(response: Response) -> int | None:
    """Count the bytes that ``Range: 0-<last>`` reports; ``0-0`` may stand for none or one."""
    found = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,18})", response.headers.get("Range", ""))
    return int(found[1]) + 1 if found else None
