"""Uploads: one blob as POST, one streamed PATCH, PUT (distribution-spec, pushing a blob in chunks).

An upload that breaks goes on from the offset that the registry reports. What is missing is not kept
here: who gave it makes it again (:data:`coco_kp.transport.Pieces`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from coco_kp.deadline import undoing
from coco_kp.errors import CocoKpError, IntegrityError, RemoteError, UnreachableError
from coco_kp.http import NEVER, Response
from coco_kp.http.retry import LONGEST_PAUSE, RETRIED, retry_after
from coco_kp.model.digest import Digest
from coco_kp.transport.base import BlobWriter, Pieces
from coco_kp.transport.registry.repository import Repository

_BROKEN: Final = RETRIED | {401, 404, 416}
"""Answers to a PATCH after which there may be something to go on with: the registry is busy, our
token expired on the way, the upload is lost, or it has another offset than we thought."""


_FORGETTING: Final = 10.0  # seconds for a registry to forget an upload

_FIRST_PIECE: Final = 256 * 1024
_LEAST_PIECE: Final = 16 * 1024
"""Bytes of a PATCH after two that broke and left nothing; each further one makes it smaller, down
to what the registry takes (``OCI-Chunk-Min-Length``)."""


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
        self, repository: Repository, size: int | None, keep: Callable[[Digest], None]
    ) -> None:
        self._repository = repository
        self._size = size
        self._keep = keep
        self._blob = _Blob(lambda _: iter(()))
        self._finished = False
        self._location = ""
        self._resumed = False
        self._least = _LEAST_PIECE

    def take(self, pieces: Pieces) -> None:
        """Send it."""
        if self._finished:
            raise ValueError("the blob is finished")
        self._blob = _Blob(pieces)
        self._transfer()

    def commit(self, digest: Digest, size: int) -> None:
        """Let the registry check and name it."""
        with self:
            found = self._blob.furthest
            if found != size or self._size not in (None, size):
                raise IntegrityError(f"the blob {digest} has {found} bytes, expected {size}")
            self._finish(digest)
            self._location = ""
        self._keep(digest)

    def abort(self) -> None:
        """Let the registry forget what it got."""
        self._finished = True
        location, self._location = self._location, ""
        if location:
            with contextlib.suppress(CocoKpError), undoing(_FORGETTING):
                self._repository.cancel_upload(location)

    def _transfer(self) -> None:
        """Send until all is there; several breaks in a row without progress end it."""
        offset, reached, piece, retry = self._start(), 0, 0, self._repository.retry
        while True:
            broken = self._send_piece(offset, piece) if piece else self._send_rest(offset)
            if broken is None:
                offset = self._blob.position
                if self._blob.ended:
                    return
            else:
                self._resumed = True
                retry = retry.after(broken.asked)
                if (piece or retry.failures > 1) and isinstance(broken.error, UnreachableError):
                    # Distribution loses an upload of which a request broke: let a piece arrive.
                    piece = max(piece // 4 if piece else _FIRST_PIECE, self._least)
                if retry.pause > LONGEST_PAUSE:
                    raise broken.error
                if not retry.over:
                    retry.wait(broken.error.message, self._repository.sleep)
                offset = self._reported_offset()
                if self._blob.ends_at(offset):
                    return  # only the answer was lost
                if offset <= reached and retry.over:
                    raise broken.error
            if offset > reached:
                reached, retry = offset, self._repository.retry

    def _start(self) -> int:
        response = self._repository.request(
            "POST", self._repository.url("blobs/uploads/"), body=b""
        )
        if not response.ok:
            raise self._repository.refused(response)
        with response:
            self._location = response.location
            least = response.headers.get("OCI-Chunk-Min-Length", "")
            if re.fullmatch(r"[0-9]{1,9}", least):
                self._least = max(_LEAST_PIECE, int(least))
        return 0

    def _send_rest(self, offset: int) -> _Broken | None:
        """Send all from ``offset`` on; return what broke it, if going on may help."""
        headers = {}
        if self._size is not None:
            headers["Content-Length"] = str(self._size - offset)
            if offset:
                headers["Content-Range"] = f"{offset}-{self._size - 1}"
        return self._patch(headers, lambda: self._blob.pieces(offset))

    def _send_piece(self, offset: int, size: int) -> _Broken | None:
        """Send up to ``size`` bytes from ``offset`` on, as :meth:`_send_rest`."""
        # Each lies where the next will.
        piece = b"".join(map(bytes, self._blob.pieces(offset, size)))
        if not piece:
            return None
        headers = {
            "Content-Length": str(len(piece)),
            "Content-Range": f"{offset}-{offset + len(piece) - 1}",
            "Connection": "close",  # so that each has all that a connection lasts
        }
        return self._patch(headers, lambda: iter([piece]))

    def _patch(
        self, headers: dict[str, str], body: Callable[[], Iterator[bytes | memoryview]]
    ) -> _Broken | None:
        headers["Content-Type"] = "application/octet-stream"
        try:
            response = self._repository.request("PATCH", self._location, headers=headers, body=body)
        except UnreachableError as error:
            if error is self._blob.failure:
                raise
            return _Broken(error)
        if response.status in _BROKEN:
            asked = retry_after(response.headers)
            return _Broken(self._repository.refused(response), asked)
        if not response.ok:
            raise self._repository.refused(response)
        with response:
            self._follow(response)
            reached, sent = _end_of_range(response), self._blob.position
            if reached is not None and reached != sent and sent > 1:
                return _Broken(
                    RemoteError(f"{response.request}: the registry has {reached} of {sent} bytes")
                )
        return None

    def _reported_offset(self) -> int:
        """Ask the registry how much it has; where it does not know, start anew."""
        with self._repository.request("GET", self._location) as response:
            offset = _end_of_range(response)
            if response.ok and offset is not None and offset > 1:
                self._follow(response)
                if offset <= self._blob.furthest:
                    return offset
        return self._start()

    def _finish(self, digest: Digest) -> None:
        retry = self._repository.retry
        while True:
            separator = "&" if "?" in self._location else "?"
            url = f"{self._location}{separator}{urlencode({'digest': str(digest)})}"
            try:
                response = self._repository.request("PUT", url, body=b"", retry=NEVER)
            except UnreachableError as exc:
                broken = _Broken(exc)
                with contextlib.suppress(UnreachableError):
                    if self._repository.has_blob(digest):
                        return  # only the answer was lost
            else:
                if response.ok:
                    with response:
                        check_digest(response, digest)
                    return
                asked = retry_after(response.headers)
                broken = _Broken(self._repository.refused(response), asked)
                if response.status in (404, 416) or (response.status == 400 and self._resumed):
                    self._resumed = False
                    self._transfer()  # the registry lost what it got, or mixed it up
                elif response.status not in RETRIED:
                    raise broken.error
            retry = retry.after(broken.asked)
            if retry.over:
                raise broken.error
            retry.wait(broken.error.message, self._repository.sleep)

    def _follow(self, response: Response) -> None:
        if "Location" in response.headers:
            self._location = response.location


class _Blob:
    """A blob as its maker gives it, from where it is asked for, and how far that came."""

    def __init__(self, make: Pieces) -> None:
        self._make = make
        self._made: Iterator[memoryview] | None = None
        self._left = memoryview(b"")  # of a piece that was given out in part
        self.position = 0
        """Up to where it was given out, in bytes."""
        self.furthest = 0
        """Up to where it was ever given out."""
        self.ended = False
        """Whether ``position`` is its end."""
        self.failure: BaseException | None = None
        """What its maker failed with."""

    def pieces(self, offset: int, most: int | None = None) -> Iterator[memoryview]:
        """Yield what comes from ``offset`` on, up to ``most`` bytes; valid until the next."""
        if self._made is None or offset != self.position:
            self._made, self._left = self._make(offset), memoryview(b"")
            self.position, self.ended = offset, False
        while most is None or most > 0:
            piece = self._next()
            if not piece:
                self.ended = True
                return
            piece, self._left = piece[:most], piece[len(piece) if most is None else most :]
            self.position += len(piece)
            self.furthest = max(self.furthest, self.position)
            most = most and most - len(piece)
            yield piece

    def ends_at(self, offset: int) -> bool:
        """Return whether all was given out, and ``offset`` is its end."""
        if offset == self.position and not self.ended:
            self._left = self._next()
            self.ended = not self._left
        return offset == self.position and self.ended

    def _next(self) -> memoryview:
        if self._left or self._made is None:
            return self._left
        try:
            return next(self._made, self._left)
        except BaseException as error:
            self.failure = error
            raise


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
